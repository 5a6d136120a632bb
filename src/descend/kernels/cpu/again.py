"""Renders what takes a step again that a `Replay` has written down: `again` looks, and then takes it.

What it reads are structures of 64-bit words, whose names stand here.
"""

from __future__ import annotations

from .emit import Lines
from .glue import ALONE, FIELDS

STEP = (
    *(
        "changes",
        "seen",
        "given",
        "given_count",
        "hooks",
        "hooks_count",
        "groups",
        "groups_count",
        "lists",
        "lists_count",
    ),
    *("plans", "plans_count", "threads", "float", "taken"),
)
"""Of a step: the count of changed states, and what it was; what `again` is given, and the dictionaries of
hooks; its groups, the lists of them and of their parameters, its plans; how many threads torch uses; the type
of a number; how often it was taken."""

GROUP = ("dict", "items", "items_count")
"""Of a parameter group: its dictionary and what that holds, in order."""

ITEM = ("key", "value", "watched", "number", "is_zero", "targets", "targets_count")
"""Of a dictionary's item: its key and its value, whether they matter, and where a number is to be written."""

LIST = ("list", "objects", "objects_count")
"""A list and the objects that it holds."""

PLAN = (
    *("gatherer", "missing", "counts", "counts_seen", "tensors", "kept", "kept_seen", "kept_words"),
    *("cohorts", "arguments", "argument_count", "kept_from", "kept_count", "steps", "firsts", "row_of"),
    *("first", "rows", "row_width", "early", "early_count", "early_places"),
    *("late", "late_count", "late_places", "record_width"),
    *("next", "starts", "starts_bytes", "table", "epoch", "mode", "run", "threads", "parallel", "release"),
    *("written", "written_count"),
)
"""Of a plan: where its addresses are gathered, and how many gradients were missing; the step counts and
scalar states, and copies of both; of every cohort the arguments of its scalars and its first parameter;
`first`, which computes the scalars, and where they and the new scalar states go; the states that the kernel
computes; what a launch sets anew; how many threads it has; the tensors whose versions count what is written.
"""

TYPE = 1
"""The word of a Python object that says its type."""

_HEAD = """
declare ptr @PyLong_AsVoidPtr(ptr)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)
declare i64 @PyDict_Size(ptr)
declare i64 @PyList_Size(ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare double @PyFloat_AsDouble(ptr)
declare ptr @PyBool_FromLong(i64)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i64 @descend_same(ptr, ptr, i64)
declare i64 @descend_holds(ptr, ptr, i64, ptr, ptr)
declare i64 @descend_gather(ptr)
declare i32 @descend_threads()
declare zeroext i1 @descend_profiled()
declare void @descend_bump(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""


class _Words(Lines):
    """Lines that read the words of a structure."""

    def word(self, names: tuple[str, ...], base: str, name: str, kind: str = "i64") -> str:
        """A word of a structure."""
        return self.load(kind, base, names.index(name), name)

    def expect(self, left: str, right: str, kind: str = "i64") -> None:
        """Go on only where two words are the same."""
        same = self.emit(f"icmp eq {kind} {left}, {right}")
        self.when(same, f"same{self.count}", "no")

    def item(self, names: tuple[str, ...], base: str, index: str) -> str:
        """A structure of an array of them."""
        return self.at("i64", base, self.emit(f"mul i64 {index}, {len(names)}"))


def _again() -> str:
    """`again(step, arguments, n)`: whether the step was taken."""
    out = _Words(["entry:"], {})
    out.do("%at = alloca i64", "%key = alloca ptr", "%value = alloca ptr")
    out.do("%step = call ptr @PyLong_AsVoidPtr(ptr %self)")

    def word(name: str, kind: str = "i64") -> str:
        return out.word(STEP, "%step", name, kind)

    out.expect(out.load("i64", word("changes", "ptr"), 0), word("seen"))
    out.expect(out.emit("call zeroext i1 @descend_profiled()"), "false", "i1")
    out.expect(out.emit(f"sext i32 {out.emit('call i32 @descend_threads()')} to i64"), word("threads"))
    given, hooks = word("given", "ptr"), word("hooks", "ptr")
    out.expect("%n", word("given_count"))
    with out.each("given", "%n") as k:
        out.expect(out.load("ptr", "%arguments", k), out.load("ptr", given, k), "ptr")
    with out.each("hooks", word("hooks_count")) as k:
        out.expect(out.emit(f"call i64 @PyDict_Size(ptr {out.load('ptr', hooks, k)})"), "0")
    lists, groups = word("lists", "ptr"), word("groups", "ptr")
    with out.each("list", word("lists_count")) as k:
        one = out.item(LIST, lists, k)
        found = out.word(LIST, one, "list", "ptr")
        length, objects = out.word(LIST, one, "objects_count"), out.word(LIST, one, "objects", "ptr")
        asked = f"ptr {found}, ptr {objects}, i64 {length}, ptr @PyList_GetItem, ptr @PyList_Size"
        out.expect(out.emit(f"call i64 @descend_holds({asked})"), "1")
    number_type = word("float", "ptr")
    with out.each("group", word("groups_count")) as k:
        group = out.item(GROUP, groups, k)
        held, items = out.word(GROUP, group, "dict", "ptr"), out.word(GROUP, group, "items", "ptr")
        out.do("store i64 0, ptr %at")
        step_on = f"call i32 @PyDict_Next(ptr {held}, ptr %at, ptr %key, ptr %value)"
        with out.each("item", out.word(GROUP, group, "items_count")) as i:
            item = out.item(ITEM, items, i)
            out.expect(out.emit(step_on), "1", "i32")
            key, value = out.emit("load ptr, ptr %key"), out.emit("load ptr, ptr %value")
            out.expect(key, out.word(ITEM, item, "key", "ptr"), "ptr")
            watched = out.emit(f"icmp ne i64 {out.word(ITEM, item, 'watched')}, 0")
            out.when(watched, "watched", "item.fine")
            is_number = out.emit(f"icmp ne i64 {out.word(ITEM, item, 'number')}, 0")
            out.when(is_number, "number", "plain")
            out.expect(out.load("ptr", value, TYPE, "its type"), number_type, "ptr")
            number = out.emit(f"call double @PyFloat_AsDouble(ptr {value})")
            is_zero = out.emit(f"zext i1 {out.emit(f'fcmp oeq double {number}, 0.0')} to i64")
            out.expect(is_zero, out.word(ITEM, item, "is_zero"))
            targets = out.word(ITEM, item, "targets", "ptr")
            with out.each("target", out.word(ITEM, item, "targets_count")) as j:
                out.do(f"store double {number}, ptr {out.load('ptr', targets, j)}")
            out.do("br label %item.fine")
            out.lines.append("plain:")
            out.expect(value, out.word(ITEM, item, "value", "ptr"), "ptr")
            out.label("item.fine")
        out.expect(out.emit(step_on), "0", "i32")
    plans, plan_count = word("plans", "ptr"), word("plans_count")
    with out.each("look", plan_count) as k:
        plan = out.item(PLAN, plans, k)

        def of_plan(name: str, kind: str = "i64", plan: str = plan) -> str:
            return out.word(PLAN, plan, name, kind)

        out.expect(out.emit(f"call i64 @descend_gather(ptr {of_plan('gatherer', 'ptr')})"), "0")
        out.expect(out.load("i64", of_plan("missing", "ptr"), 0), "0")
        for name, words in (("counts", "tensors"), ("kept", "kept_words")):
            pair = f"ptr {of_plan(name, 'ptr')}, ptr {of_plan(f'{name}_seen', 'ptr')}"
            out.expect(out.emit(f"call i64 @descend_same({pair}, i64 {of_plan(words)})"), "1")
        out.expect(out.emit(f"call i64 @rows(ptr {plan})"), "0")
    with out.each("take", plan_count) as k:
        out.do(f"call void @take(ptr {out.item(PLAN, plans, k)})")
    taken = out.at("i64", "%step", STEP.index("taken"))
    more = out.emit(f"add i64 {out.load('i64', taken, 0)}, 1")
    out.do(f"store i64 {more}, ptr {taken}")
    for answer in (1, 0):
        yes = out.emit(f"call ptr @PyBool_FromLong(i64 {answer})")
        out.do(f"ret ptr {yes}")
        if answer:
            out.lines.append("no:")
    return "\n".join(["define ptr @again(ptr %self, ptr %arguments, i64 %n) {", *out.lines, "}"])


def _rows() -> str:
    """`rows(plan)`: the scalars of every cohort; not 0 where Python would compute them another way."""
    out = _Words(["entry:"], {})

    def word(name: str, kind: str = "i64") -> str:
        return out.word(PLAN, "%plan", name, kind)

    tensors, kept, kept_count = word("tensors"), word("kept", "ptr"), word("kept_count")
    steps, firsts, first = word("steps", "ptr"), word("firsts", "ptr"), word("first", "ptr")
    arguments, width, kept_from = word("arguments", "ptr"), word("argument_count"), word("kept_from")
    rows, row_width = word("rows", "ptr"), word("row_width")
    early, early_count = word("early", "ptr"), word("early_count")
    with out.each("cohort", word("cohorts")) as k:
        given = out.at("double", arguments, out.emit(f"mul i64 {k}, {width}"))
        t = out.emit(f"fadd double {out.load('double', steps, k)}, 1.0")
        out.do(f"store double {t}, ptr {given}")
        states, member = out.at("double", given, kept_from), out.load("i64", firsts, k)
        with out.each("state", kept_count) as s:
            value = out.load("double", kept, out.place(s, tensors, member))
            out.do(f"store double {value}, ptr {out.at('double', states, s)}")
        row = out.at("double", rows, out.emit(f"mul i64 {k}, {row_width}"))
        new = out.at("double", early, out.emit(f"mul i64 {k}, {early_count}"))
        out.expect(out.emit(f"call i64 {first}(ptr {given}, ptr {row}, ptr {new})"), "0")
    out.do("ret i64 0")
    out.lines.append("no:")
    return "\n".join(["define internal i64 @rows(ptr %plan) {", *out.lines, "  ret i64 1", "}"])


def _take() -> str:
    """`take(plan)`: count the step, run the kernel, keep the new states, and note what was written."""
    out = _Words(["entry:"], {})
    out.do("%apart = alloca i64", "store i64 0, ptr %apart")

    def word(name: str, kind: str = "i64") -> str:
        return out.word(PLAN, "%plan", name, kind)

    def copy(to: str, source: str, bytes_: str) -> None:
        out.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 {bytes_}, i1 false)")

    tensors, kept, kept_seen = word("tensors"), word("kept", "ptr"), word("kept_seen", "ptr")
    kept_bytes = out.emit(f"mul i64 {word('kept_words')}, 4")
    steps, firsts, row_of = word("steps", "ptr"), word("firsts", "ptr"), word("row_of", "ptr")
    with out.each("cohort", word("cohorts")) as k:
        t = out.emit(f"fadd double {out.load('double', steps, k)}, 1.0")
        out.do(f"store double {t}, ptr {out.at('double', steps, k)}")
    counts, seen = word("counts", "ptr"), word("counts_seen", "ptr")
    with out.each("count", tensors) as i:
        more = out.emit(f"fadd float {out.load('float', counts, i)}, 1.0")
        out.do(*(f"store float {more}, ptr {out.at('float', to, i)}" for to in (counts, seen)))
    early, early_count, early_places = word("early", "ptr"), word("early_count"), word("early_places", "ptr")
    with out.each("new", early_count) as s:
        state = out.at("double", kept, out.emit(f"mul i64 {out.load('i64', early_places, s)}, {tensors}"))
        with out.each("new.of", tensors) as i:
            value = out.load("double", early, out.place(out.load("i64", row_of, i), early_count, s))
            out.do(f"store double {value}, ptr {out.at('double', state, i)}")
    copy(kept_seen, kept, kept_bytes)

    copy(word("next", "ptr"), word("starts", "ptr"), word("starts_bytes"))
    table, run, epoch, all_threads = (
        word("table", "ptr"),
        word("run", "ptr"),
        word("epoch", "ptr"),
        word("threads"),
    )
    now = out.emit(f"add i64 {out.load('i64', epoch, 0)}, 1")
    several = out.emit(f"icmp sgt i64 {all_threads}, 1")
    mode = out.emit(f"call i64 {word('mode', 'ptr')}()")
    mode = out.emit(f"select i1 {several}, i64 {mode}, i64 {ALONE}")
    out.do(f"store i64 {now}, ptr {epoch}")
    for name, value in (("arrived", "0"), ("epoch", now), ("mode", mode)):
        out.do(f"store i64 {value}, ptr {out.at('i64', table, FIELDS.index(name))}")
    out.when(out.emit(f"icmp ne i64 {word('release')}, 0"), "free", "held")
    thread = out.emit("call ptr @PyEval_SaveThread()")
    out.when(several, "several", "one")
    threads = out.emit(f"trunc i64 {all_threads} to i32")
    out.do(
        f"call void {word('parallel', 'ptr')}(ptr {run}, ptr {table}, i32 {threads}, i32 0)", "br label %back"
    )
    out.lines.append("one:")
    out.do(f"call void {run}(ptr {table})")
    out.label("back")
    out.do(f"call void @PyEval_RestoreThread(ptr {thread})", "br label %ran")
    out.lines.append("held:")
    out.do(f"call void {run}(ptr {table})")
    out.label("ran")

    late, late_count, late_places = word("late", "ptr"), word("late_count"), word("late_places", "ptr")
    width = word("record_width")
    with out.each("late", late_count) as s:
        state = out.at("double", kept, out.emit(f"mul i64 {out.load('i64', late_places, s)}, {tensors}"))
        with out.each("late.of", tensors) as i:
            value = out.load("double", late, out.place(i, width, s))
            out.do(f"store double {value}, ptr {out.at('double', state, i)}")
            leader = out.load("i64", firsts, out.load("i64", row_of, i))
            apart = out.emit(
                f"fcmp une double {value}, {out.load('double', late, out.place(leader, width, s))}"
            )
            before = out.emit("load i64, ptr %apart")
            out.do(f"store i64 {out.emit(f'select i1 {apart}, i64 1, i64 {before}')}, ptr %apart")
    out.when(out.emit(f"icmp eq i64 {out.emit('load i64, ptr %apart')}, 0"), "alike", "settled")
    copy(kept_seen, kept, kept_bytes)  # what has come apart is seen, and sorted, at the next step
    out.label("settled")
    written = word("written", "ptr")
    with out.each("bump", word("written_count")) as i:
        out.do(f"call void @descend_bump(ptr {out.load('ptr', written, i)})")
    return "\n".join(["define internal void @take(ptr %plan) {", *out.lines, "  ret void", "}"])


def module() -> str:
    """The module with `again`."""
    return "\n\n".join([_HEAD, _rows(), _take(), _again(), ""])
