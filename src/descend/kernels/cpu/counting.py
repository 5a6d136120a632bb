"""The step's small checks as compiled functions: no Python object and no memory is taken for them.

A backward pass leaves the processor's caches and the heap in such a state that the first NumPy call after it
costs ten times what it costs in a loop of its own.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from .compiler import c_function, compile_function

_IR = """
; whether two runs of 32-bit words hold the same bits
define i64 @same(ptr noalias %a, ptr noalias %b, i64 %n) {
entry:
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i2, %next ]
  %d = phi i32 [ 0, %entry ], [ %d2, %next ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %next, label %done
next:
  %a_at = getelementptr i32, ptr %a, i64 %i
  %av = load i32, ptr %a_at
  %b_at = getelementptr i32, ptr %b, i64 %i
  %bv = load i32, ptr %b_at
  %x = xor i32 %av, %bv
  %d2 = or i32 %d, %x
  %i2 = add i64 %i, 1
  br label %check
done:
  %r = icmp eq i32 %d, 0
  %r64 = zext i1 %r to i64
  ret i64 %r64
}

; one more for every count, and the same into a copy
define void @count(ptr noalias %a, ptr noalias %b, i64 %n) {
entry:
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i2, %next ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %next, label %done
next:
  %a_at = getelementptr float, ptr %a, i64 %i
  %av = load float, ptr %a_at
  %b_at = getelementptr float, ptr %b, i64 %i
  %v = fadd float %av, 1.0
  store float %v, ptr %a_at
  store float %v, ptr %b_at
  %i2 = add i64 %i, 1
  br label %check
done:
  ret void
}

; whether a Python list holds exactly these objects
define i64 @holds(ptr %list, ptr %objects, i64 %n, ptr %get, ptr %size) {
entry:
  %now = call i64 %size(ptr %list)
  %long = icmp eq i64 %now, %n
  br i1 %long, label %check, label %no
check:
  %i = phi i64 [ 0, %entry ], [ %i2, %next ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %look, label %yes
look:
  %o = call ptr %get(ptr %list, i64 %i)
  %w_at = getelementptr ptr, ptr %objects, i64 %i
  %w = load ptr, ptr %w_at
  %same = icmp eq ptr %o, %w
  br i1 %same, label %next, label %no
next:
  %i2 = add i64 %i, 1
  br label %check
yes:
  ret i64 1
no:
  ret i64 0
}
"""


@cache
def same() -> Any:
    """`same(a, b, n)`: whether n 32-bit words at two addresses are the same."""
    address = compile_function(_IR, "same")
    return c_function(
        address, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, with_gil=True
    )


@cache
def count() -> Any:
    """`count(a, b, n)`: add one to n float32 at `a`, and copy them to `b`."""
    address = compile_function(_IR, "count")
    return c_function(address, None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, with_gil=True)


@cache
def holds() -> tuple[Any, int, int]:
    """`holds(list, objects, n, get, size)`: whether a list holds just these; and Python's get and size."""
    address = compile_function(_IR, "holds")
    words = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    function = c_function(address, ctypes.c_int64, *words, with_gil=True)
    api = (ctypes.pythonapi.PyList_GetItem, ctypes.pythonapi.PyList_Size)
    get, size = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in api)
    return function, get, size


class Items:
    """The objects of a list as they were once, kept alive; `in_list` says whether a list holds just these."""

    def __init__(self, objects: list[Any]) -> None:
        self._objects = tuple(objects)
        self._places = (ctypes.c_void_p * len(objects))(*map(id, objects))
        self._function, get, size = holds()
        self._rest = (ctypes.addressof(self._places), len(objects), get, size)

    def in_list(self, items: list[Any]) -> bool:
        """Whether `items` holds the same objects in the same order."""
        return bool(type(items) is list and self._function(items, *self._rest))
