from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from descend.data import Data, load
from descend.data.text import guess_encodings
from descend.errors import DataError, UsageError

CHINESE = "姓名,年龄,城市,收入\n" + "".join(
    f"{name},{age},{city},{income}\n"
    for name, age, city, income in [
        ("张伟", 30, "北京", 5200),
        ("王芳", 41, "上海", 6100),
        ("李娜", 25, "广州", 4300),
        ("刘洋", 52, "北京", 7700),
        ("陈静", 37, "上海", 5900),
    ]
)
PLAIN = "a,b,y\n1,x,2.5\n2,z,3.5\n3,x,4.5\n4,z,5.75\n"


def write(folder: Path, raw: bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def read(
    folder: Path, raw: bytes, target: str = "y", name: str = "t.csv", encoding: str | None = None
) -> Data:
    return load(write(folder, raw, name), target=target, validation=0, encoding=encoding)


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "GB2312"])
def test_a_chinese_table_is_read_by_its_encoding(tmp_path: Path, encoding: str) -> None:
    data = read(tmp_path, CHINESE.encode(encoding), "收入", encoding=encoding)
    assert "年龄" in data.features
    assert "城市=北京" in data.features
    assert data.recipe["load"]["encoding"] == encoding


def test_the_error_names_the_encoding_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, CHINESE.encode("gb18030"), "收入")
    message = str(caught.value)
    assert "cannot be read as UTF-8" in message
    assert "byte 0xd0 at offset 0 (line 1)" in message
    assert "姓名,年龄,城市,收入" in message
    assert "encoding='gb18030'" in message
    with pytest.raises(DataError, match=r"cannot be read as ascii.*encoding='latin-1'"):
        read(tmp_path, "a,prix é\n1,2\n".encode("latin-1"), "a", encoding="ascii")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", CHINESE),
        ("big5", "姓名,年齡,城市\n張偉,30,臺北\n陳靜,41,高雄\n林小明,25,臺中\n"),
        ("shift_jis", "名前,年齢,都市\nたなか,30,とうきょう\nスズキ,41,オオサカ\n"),
        ("euc_kr", "이름,나이,도시\n김민수,30,서울\n이영희,41,부산\n"),
        ("latin-1", "Größe,Straße,prix\n1,Königstraße,2\n2,Rue de l'Été,3\n"),
        ("cp1252", "price €,name\n1,caf\u00e9 “x”\n"),
    ],
)
def test_encodings_are_guessed(encoding: str, text: str) -> None:
    assert guess_encodings(text.encode(encoding))[0] == encoding


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r\n").encode(),
        gzip.compress(PLAIN.encode()),
        ("\n\n" + PLAIN + "\n\n").encode(),
        PLAIN.replace(",", ", ").encode(),
    ],
    ids=["utf-8 mark", "utf-16 mark", "utf-32 mark", "CRLF", "gzip", "blank lines", "blanks after commas"],
)
def test_marks_line_ends_and_blanks_are_no_matter(tmp_path: Path, raw: bytes) -> None:
    assert read(tmp_path, raw).features == ["a", "b=x", "b=z"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    assert read(tmp_path, PLAIN.replace(",", separator).encode()).features == ["a", "b=x", "b=z"]
    assert read(tmp_path, PLAIN.replace(",", "\t").encode(), name="t.tsv").features == ["a", "b=x", "b=z"]


def test_decimal_commas_are_read_where_semicolons_separate(tmp_path: Path) -> None:
    data = read(tmp_path, b"a;b;y\n1,5;-2,25;2\n2;3,5;3,5\n4,5;1;7\n")
    assert data.features == ["a", "b"]
    assert data.recipe["columns"][1]["mean"] == pytest.approx(0.75)
    assert data.recipe["target"]["mean"] == [pytest.approx(12.5 / 3)]


def test_utf_8_with_the_mark_is_read_when_named_too(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf" + PLAIN.encode(), encoding="utf8").features[0] == "a"


def test_an_unknown_encoding_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'gb18003' is not known.*did you mean 'gb18030'"):
        read(tmp_path, PLAIN.encode(), encoding="gb18003")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a,b,y\n1,2,3\n4,5\n6,7,8\n", r"line 3: 2 fields where the header has 3"),
        (b"a,b,y\n1,2,3\n\n4,5,6,7\n", r"line 4: 4 fields where the header has 3"),
        (b'a,b,y\n1,"two\nlines",3\n4,5\n', r"line 4: 2 fields"),
        (b'a,b,y\n1,"2,3\n', r"from line 2: .*check the quotes"),
        (b"a,a,y\n1,2,3\n", r"'a' appears twice"),
        (b"a,b,y\n", r"has a header \(a, b, y\) and no rows"),
        (b"1,2,3\n4,5,6\n", r"first line \(1, 2, 3\) holds numbers and no column names"),
        (b"\n \n", r"is empty"),
        (b"", r"is empty"),
        (PLAIN.encode("utf-16-le"), r"NUL characters.*encoding='utf-16-le'"),
        (b"\x1f\x8b\x08\x00broken", r"damaged gzip"),
    ],
)
def test_malformed_tables_are_refused_by_line(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, raw)
