"""Reading delimited text: encodings, separators, and rows that do not have the header's number of fields."""

from __future__ import annotations

import codecs
import csv
import io
import re
from array import array
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "?")
SEPARATORS = ",;\t|"
ENCODINGS = (
    *("utf-8", "utf-16", "utf-32", "gb18030", "gbk", "big5", "shift_jis", "euc_jp", "euc_kr", "latin-1"),
    *("cp1252", "cp1250", "cp1251", "cp437", "koi8_r", "iso8859_2", "iso8859_15", "mac_roman", "ascii"),
)


def decode_bytes(raw: bytes, name: str, encoding: str | None) -> str:
    """The text of a file. Without `encoding` it is UTF-8, or what a byte-order mark says; a mark is dropped.

    Raises:
        UsageError: no such encoding.
        DataError: the bytes are not in it; the message suggests the one that they seem to be in.
    """
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise UsageError(
                f"encoding={encoding!r} is not known{nearest(encoding.lower(), ENCODINGS)}; "
                f"use one such as {', '.join(ENCODINGS[:11])}"
            ) from None
    taken = encoding or _marked(raw) or "utf-8"
    try:
        text = raw.decode(taken)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        at = f"byte 0x{raw[error.start]:02x} at offset {error.start}" if error.start < len(raw) else "its end"
        raise DataError(
            f"{name} cannot be read as {encoding or 'UTF-8'}: {at} (line {line}) does not fit. {_advice(raw)}"
        ) from None
    if "\0" in text:
        guess = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be" if raw[:1] == b"\0" else None
        hint = (
            f"it looks like UTF-16 without a mark: try encoding={guess!r}"
            if guess
            else "it seems not to be text"
        )
        raise DataError(f"{name} holds NUL characters; {hint}")
    return text.removeprefix("\ufeff")


def _marked(raw: bytes) -> str | None:
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None


def _advice(raw: bytes) -> str:
    guesses = guess_encodings(raw)
    if not guesses:
        return "Name its encoding with encoding=… (--encoding), such as gb18030, big5, shift_jis or latin-1"
    header = raw.decode(guesses[0], errors="replace").splitlines()[0][:60]
    rest = f" (or {', '.join(guesses[1:])})" if guesses[1:] else ""
    return (
        f"It reads as {guesses[0]}{rest}, with the first line {header!r}: "
        f"pass encoding={guesses[0]!r} (--encoding)"
    )


def guess_encodings(raw: bytes) -> list[str]:
    """The encodings that these bytes are likely in, best first.

    Bytes above 127 that stand alone between ASCII letters are accents of a Western encoding. In runs they are
    East Asian: then each encoding is judged by the share of its characters that are everyday ones.

    >>> guess_encodings("姓名,年龄,城市\\n张伟,30,北京\\n".encode("gb18030"))[0]
    'gb18030'
    >>> guess_encodings("café,prix\\n".encode("latin-1"))[0]
    'latin-1'
    """
    sample = raw[: 1 << 16]
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    high = sum(byte > 127 for byte in sample)
    runs = sum(byte > 127 and (i == 0 or sample[i - 1] <= 127) for i, byte in enumerate(sample))
    western = ["cp1252", "latin-1"] if any(0x80 <= byte < 0xA0 for byte in sample) else ["latin-1", "cp1252"]
    scored = sorted(((_everyday(sample, codec), codec) for codec in _EAST), key=lambda pair: -pair[0])
    eastern = [codec for score, codec in scored if score > 0.5]
    if runs and high / runs >= 1.5 and eastern:
        return [*eastern, *western[:1]]
    return [codec for codec in western if _decodes(sample, codec)]


# Korean first: of two encodings that fit equally well the first is taken, and Chinese text seldom keeps to
# the part of its table where Hangul lies.
_EAST = ("euc_kr", "gb18030", "big5", "shift_jis", "euc_jp")


def _decodes(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _everyday(raw: bytes, codec: str) -> float:
    """The share of everyday characters among the non-ASCII letters; 0 where the bytes do not decode."""
    if not _decodes(raw, codec):
        return 0.0
    letters = [c for c in raw.decode(codec) if ord(c) > 127 and c.isalpha()]
    if not letters:
        return 0.0
    counts = Counter(letters)
    return sum(k for c, k in counts.items() if _is_everyday(c, codec)) / len(letters)


def _is_everyday(letter: str, codec: str) -> bool:
    """Whether a letter is in the frequent first level of the codec's standard; in theirs, kana and hangul."""
    code = ord(letter)
    if 0x3040 <= code <= 0x30FF:
        return codec in ("shift_jis", "euc_jp")
    if 0xAC00 <= code <= 0xD7A3:
        return codec == "euc_kr"
    base, first, last = {
        "gb18030": ("gb2312", 0xB0A1, 0xD7F9),
        "big5": ("big5", 0xA440, 0xC67E),
        "shift_jis": ("shift_jis", 0x889F, 0x9872),
        "euc_jp": ("euc_jp", 0xB0A1, 0xCFD3),
        "euc_kr": ("euc_kr", 0xFFFF, 0xFFFF),
    }[codec]
    try:
        encoded = letter.encode(base)
    except UnicodeEncodeError:
        return False
    return len(encoded) == 2 and first <= int.from_bytes(encoded, "big") <= last


def find_separator(text: str, name: str) -> str:
    """A tab for .tsv, else the most frequent of comma, semicolon, tab and bar in the header line."""
    if name.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    header = next((line for line in text.splitlines() if line.strip()), "")
    bare = "".join(header.split('"')[::2])
    return max(SEPARATORS, key=lambda s: (bare.count(s), -SEPARATORS.index(s)))


def find_decimal(text: str, separator: str) -> str:
    """The decimal mark: a comma where semicolons separate and no number has a point, else a point.

    >>> find_decimal("a;b\\n1,5;2\\n", ";"), find_decimal("a;b\\n1.5;x,y\\n", ";")
    (',', '.')
    """
    if separator != ";":
        return "."
    number = r"(^|;)\s*[+-]?\d+{}\d+\s*(;|$)"
    commas, points = (re.search(number.format(mark), text, re.MULTILINE) for mark in (",", r"\."))
    return "," if commas and not points else "."


def check_rows(text: str, separator: str, name: str) -> tuple[list[str], array[int]]:
    """The header's names, and the line on which each row starts.

    Raises:
        DataError: no header, a name twice, a line with another number of fields, an unclosed quote.
    """
    lines: array[int] = array("q")
    header: list[str] = []
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    before = 0
    try:
        for fields in reader:
            start, before = before + 1, reader.line_num
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                continue
            if not header:
                header = [field.strip() for field in fields]
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{name}, line {start}: {len(fields)} fields where the header has {len(header)} "
                    f"(columns separated by {separator!r}); mend the line, or quote a field that holds the "
                    "separator"
                )
            lines.append(start)
    except csv.Error as error:
        raise DataError(f"{name}, from line {before + 1}: {error}; check the quotes there") from None
    if not header:
        raise DataError(f"{name} is empty: give a table with a header line and rows")
    if not lines:
        raise DataError(f"{name} has a header ({', '.join(header[:8])}) and no rows: give at least one row")
    _check_header(header, name)
    return header, lines


def _check_header(header: list[str], name: str) -> None:
    twice = [column for column, k in Counter(header).items() if k > 1]
    if twice:
        raise DataError(
            f"{name}: the column name {twice[0]!r} appears twice in the header; give each its own name"
        )

    def number(field: str) -> bool:
        try:
            float(field)
        except ValueError:
            return False
        return True

    if all(number(field) for field in header):
        raise DataError(
            f"{name}: the first line ({', '.join(header[:4])}) holds numbers and no column names; add a "
            "header line"
        )


def read_text(path: Path, encoding: str | None) -> tuple[pd.DataFrame, array[int]]:
    """A CSV or TSV file (also .gz) as a frame, and the line on which each of its rows starts."""
    import gzip

    import pandas as pd

    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: damaged gzip file ({error})") from None
    text = decode_bytes(raw, str(path), encoding)
    separator = find_separator(text, path.name)
    header, lines = check_rows(text, separator, str(path))
    frame = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        decimal=find_decimal(text, separator),
        skipinitialspace=True,
        keep_default_na=False,
        na_values=list(MISSING),
        low_memory=False,
        header=0,
        names=header,
        index_col=False,
    )
    assert len(frame) == len(lines)
    return frame, lines
