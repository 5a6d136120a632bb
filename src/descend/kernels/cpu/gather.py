"""Reads, in one call, where every parameter, gradient and state lies, and checks that nothing moved.

torch exports its tensors' addresses and layouts through the C table of the DLPack standard; one compiled
loop asks it about every tensor. Where torch has no such table (before 2.10) `read_slowly` does the same
in Python, and it also prepares what the kernels cannot read as it stands: a gradient of other strides,
a lazily negated or conjugated one.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import torch

from .compiler import c_function, compile_function

FINE, CHANGED, OTHER_GRADIENT, STATE_CHANGED = range(4)
"""What `read` answers: all as planned; a parameter's layout, a gradient's or a state's differs."""

# DLTensor: data 0, device 8, ndim 16, dtype 20, shape 24, strides 32, byte_offset 40
_IR = """
define internal i64 @layout(ptr %d) {
entry:
  %kind_at = getelementptr i8, ptr %d, i64 20
  %kind32 = load i32, ptr %kind_at
  %kind = zext i32 %kind32 to i64
  %device_at = getelementptr i8, ptr %d, i64 8
  %device32 = load i32, ptr %device_at
  %device = zext i32 %device32 to i64
  %high = shl i64 %device, 32
  %seed = or i64 %kind, %high
  %ndim_at = getelementptr i8, ptr %d, i64 16
  %ndim32 = load i32, ptr %ndim_at
  %ndim = sext i32 %ndim32 to i64
  %shape_at = getelementptr i8, ptr %d, i64 24
  %shape = load ptr, ptr %shape_at
  %strides_at = getelementptr i8, ptr %d, i64 32
  %strides = load ptr, ptr %strides_at
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i2, %next ]
  %h = phi i64 [ %seed, %entry ], [ %h4, %next ]
  %more = icmp slt i64 %i, %ndim
  br i1 %more, label %next, label %done
next:
  %s_at = getelementptr i64, ptr %shape, i64 %i
  %s = load i64, ptr %s_at
  %t_at = getelementptr i64, ptr %strides, i64 %i
  %t = load i64, ptr %t_at
  %one = icmp eq i64 %s, 1
  %t1 = select i1 %one, i64 1, i64 %t
  %h1 = mul i64 %h, 1099511628211
  %h2 = xor i64 %h1, %s
  %h3 = mul i64 %h2, 1099511628211
  %h4 = xor i64 %h3, %t1
  %i2 = add i64 %i, 1
  br label %check
done:
  ret i64 %h
}

define internal ptr @address(ptr %d) {
  %data = load ptr, ptr %d
  %off_at = getelementptr i8, ptr %d, i64 40
  %off = load i64, ptr %off_at
  %a = getelementptr i8, ptr %data, i64 %off
  ret ptr %a
}

define internal ptr @field(ptr %ctx, i64 %k) alwaysinline {
  %at = getelementptr ptr, ptr %ctx, i64 %k
  %v = load ptr, ptr %at
  ret ptr %v
}

define i64 @signature(ptr %ctx, ptr %object) {
  %d = alloca [48 x i8], align 8
  %export = call ptr @field(ptr %ctx, i64 5)
  %rc = call i32 %export(ptr %object, ptr %d)
  %bad = icmp ne i32 %rc, 0
  br i1 %bad, label %fail, label %fine
fail:
  ret i64 -1
fine:
  %h = call i64 @layout(ptr %d)
  ret i64 %h
}

define i64 @gather(ptr %ctx) {
entry:
  %d = alloca [48 x i8], align 8
  %n_p = call ptr @field(ptr %ctx, i64 0)
  %n = ptrtoint ptr %n_p to i64
  %k_p = call ptr @field(ptr %ctx, i64 1)
  %k = ptrtoint ptr %k_p to i64
  %objects = call ptr @field(ptr %ctx, i64 2)
  %hashes = call ptr @field(ptr %ctx, i64 3)
  %addresses = call ptr @field(ptr %ctx, i64 4)
  %export = call ptr @field(ptr %ctx, i64 5)
  %getattr = call ptr @field(ptr %ctx, i64 6)
  %grad = call ptr @field(ptr %ctx, i64 7)
  %none = call ptr @field(ptr %ctx, i64 8)
  %decref = call ptr @field(ptr %ctx, i64 9)
  %callmethod = call ptr @field(ptr %ctx, i64 10)
  %isneg = call ptr @field(ptr %ctx, i64 11)
  %true = call ptr @field(ptr %ctx, i64 12)
  %missing_at = getelementptr i64, ptr %ctx, i64 13
  %gradhashes = call ptr @field(ptr %ctx, i64 14)
  %looked_p = call ptr @field(ptr %ctx, i64 15)
  %looked = ptrtoint ptr %looked_p to i64
  store i64 0, ptr %missing_at
  %arg = alloca ptr, align 8
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i2, %next ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %param, label %done
param:
  %first = mul i64 %i, %k
  %p_at = getelementptr ptr, ptr %objects, i64 %first
  %p = load ptr, ptr %p_at
  %a_at = getelementptr ptr, ptr %addresses, i64 %first
  %rc = call i32 %export(ptr %p, ptr %d)
  %bad = icmp ne i32 %rc, 0
  br i1 %bad, label %raised, label %laid
laid:
  %h = call i64 @layout(ptr %d)
  %want_at = getelementptr i64, ptr %hashes, i64 %i
  %want = load i64, ptr %want_at
  %same = icmp eq i64 %h, %want
  br i1 %same, label %gradient, label %changed
gradient:
  %pa = call ptr @address(ptr %d)
  store ptr %pa, ptr %a_at
  %g = call ptr %getattr(ptr %p, ptr %grad)
  %failed = icmp eq ptr %g, null
  br i1 %failed, label %raised, label %got
got:
  %ga_at = getelementptr ptr, ptr %a_at, i64 1
  %absent = icmp eq ptr %g, %none
  br i1 %absent, label %skip, label %present
skip:
  call void %decref(ptr %g)
  store ptr null, ptr %ga_at
  %m = load i64, ptr %missing_at
  %m1 = add i64 %m, 1
  store i64 %m1, ptr %missing_at
  br label %states
present:
  store ptr %g, ptr %arg
  %neg = call ptr %callmethod(ptr %isneg, ptr %arg, i64 1, ptr null)
  %negfailed = icmp eq ptr %neg, null
  br i1 %negfailed, label %raisedg, label %asked
asked:
  call void %decref(ptr %neg)
  %negated = icmp eq ptr %neg, %true
  br i1 %negated, label %otherg, label %plain
plain:
  %rcg = call i32 %export(ptr %g, ptr %d)
  %badg = icmp ne i32 %rcg, 0
  br i1 %badg, label %raisedg, label %laidg
laidg:
  %hg = call i64 @layout(ptr %d)
  %wantg_at = getelementptr i64, ptr %gradhashes, i64 %i
  %wantg = load i64, ptr %wantg_at
  %sameg = icmp eq i64 %hg, %wantg
  br i1 %sameg, label %keep, label %otherg
keep:
  %ga = call ptr @address(ptr %d)
  store ptr %ga, ptr %ga_at
  call void %decref(ptr %g)
  br label %states
states:
  br label %scheck
scheck:
  %j = phi i64 [ 2, %states ], [ %j2, %skept ]
  %smore = icmp slt i64 %j, %looked
  br i1 %smore, label %state, label %next
state:
  %s_at = getelementptr ptr, ptr %p_at, i64 %j
  %s = load ptr, ptr %s_at
  %rcs = call i32 %export(ptr %s, ptr %d)
  %bads = icmp ne i32 %rcs, 0
  br i1 %bads, label %raised, label %laids
laids:
  %hs = call i64 @layout(ptr %d)
  %sslot = mul i64 %k, %n
  %ss0 = sub i64 %j, 2
  %ss1 = mul i64 %ss0, %n
  %ss2 = add i64 %ss1, %n
  %ss3 = add i64 %ss2, %i
  %wants_at = getelementptr i64, ptr %hashes, i64 %ss3
  %wants = load i64, ptr %wants_at
  %sames = icmp eq i64 %hs, %wants
  br i1 %sames, label %skept, label %statechanged
skept:
  %sa = call ptr @address(ptr %d)
  %sa_at = getelementptr ptr, ptr %a_at, i64 %j
  store ptr %sa, ptr %sa_at
  %j2 = add i64 %j, 1
  br label %scheck
next:
  %i2 = add i64 %i, 1
  br label %check
done:
  ret i64 0
raised:
  ret i64 -1
raisedg:
  call void %decref(ptr %g)
  ret i64 -1
changed:
  ret i64 1
otherg:
  call void %decref(ptr %g)
  ret i64 2
statechanged:
  ret i64 3
}
"""


def _python_function(name: str) -> int:
    address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    assert address
    return address


@cache
def _exporter() -> int | None:
    """The address of torch's `dltensor_from_py_object_no_sync`, or None where torch has none."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    table = pointer(capsule, b"dlpack_exchange_api")
    if not table:
        return None
    words = (ctypes.c_uint64 * 6).from_address(table)
    return words[5] if words[0] & 0xFFFFFFFF == 1 else None


@cache
def _functions() -> tuple[Any, Any]:
    address = compile_function(_IR, "gather")
    gather = c_function(address, ctypes.c_int64, ctypes.c_void_p, with_gil=True)
    signature = c_function(
        compile_function(_IR, "signature"), ctypes.c_int64, ctypes.c_void_p, ctypes.py_object, with_gil=True
    )
    return gather, signature


class Gatherer:
    """Reads the addresses of `n` parameters with `k` operands each (parameter, gradient, states).

    `addresses` is an int64 array [n, k], zero where a parameter has no gradient in this step. With `private`
    nobody else holds the states, so nobody can have moved them, and they are not looked at.
    """

    def __init__(
        self,
        params: list[torch.Tensor],
        gradients: list[torch.Tensor | None],
        states: list[list[torch.Tensor]],
        private: bool = False,
    ) -> None:
        self.private = private
        self.params = params
        self.states = states
        n, k = len(params), 2 + len(states)
        self.addresses = np.zeros((n, k), np.int64)
        self.missing = 0
        self.kept: list[torch.Tensor] = []
        self._gradient_dtypes = [
            p.dtype if g is None else g.dtype for p, g in zip(params, gradients, strict=True)
        ]
        exporter = _exporter()
        # complex gradients may be lazily conjugated, which the table does not tell
        self._quick = exporter is not None and not any(p.is_complex() for p in params)
        if self._quick:
            self._prepare(exporter or 0)

    def _prepare(self, exporter: int) -> None:
        n, k = self.addresses.shape
        none, true = id(None), id(True)
        self._names = ("grad", torch.Tensor.is_neg)
        objects = np.zeros((n, k), np.int64)
        objects[:, 0] = [id(p) for p in self.params]
        for j, column in enumerate(self.states):
            objects[:, 2 + j] = [id(s) for s in column]
            self.addresses[:, 2 + j] = [s.data_ptr() for s in column]
        gather, signature = _functions()
        ctx = (ctypes.c_int64 * 16)()
        ctx[5] = exporter
        ctx_at = ctypes.addressof(ctx)
        layouts = [self.params, *self.states]
        hashes = np.array([[signature(ctx_at, t) for t in column] for column in layouts], np.int64)
        same = (
            [
                h if d == p.dtype else signature(ctx_at, torch.empty_like(p, dtype=d, device="cpu"))
                for h, d, p in zip(hashes[0], self._gradient_dtypes, self.params, strict=True)
            ]
            if n
            else []
        )
        gradient_hashes = np.array(same, np.int64)
        ctx[:] = [
            n, k, objects.ctypes.data, hashes.ctypes.data, self.addresses.ctypes.data, exporter,
            _python_function("PyObject_GetAttr"), id(self._names[0]), none, _python_function("Py_DecRef"),
            _python_function("PyObject_Vectorcall"), id(self._names[1]), true, 0, gradient_hashes.ctypes.data,
            2 if self.private else k,
        ]  # fmt: skip
        self._alive = (objects, hashes, gradient_hashes)
        self._ctx = ctx
        self._ctx_at = ctx_at
        self._gather = gather

    def read(self) -> int:
        """Fill `addresses` and count gradients that are None in `missing`; FINE, or what differs."""
        self.kept = []
        if not self._quick:
            return self.read_slowly()
        try:
            answer = int(self._gather(self._ctx_at))
        except (RuntimeError, BufferError):
            return CHANGED if any(_cannot_export(p) for p in self.params) else OTHER_GRADIENT
        self.missing = self._ctx[13]
        return answer

    def read_slowly(self) -> int:
        """As `read`, in Python; gradients that the kernels cannot read are copied first (into `kept`)."""
        self.kept, self.missing = [], 0
        for i, p in enumerate(self.params):
            g = p.grad
            self.addresses[i, 0] = p.data_ptr()
            self.addresses[i, 1] = 0
            for j, column in enumerate(self.states):
                self.addresses[i, 2 + j] = column[i].data_ptr()
                if column[i].shape != p.shape or not same_layout(column[i], p):
                    return STATE_CHANGED
            if g is None:
                self.missing += 1
                continue
            if g.layout != torch.strided or g.dtype != self._gradient_dtypes[i] or g.device != p.device:
                return OTHER_GRADIENT
            if g.is_neg() or g.is_conj() or not same_layout(g, p):
                g = torch.empty_like(p, dtype=g.dtype).copy_(g)
                self.kept.append(g)
            self.addresses[i, 1] = g.data_ptr()
        return FINE


def same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one shape lie in memory in the same order."""
    if a.shape != b.shape:
        return False
    return all(s == 1 or x == y for s, x, y in zip(a.shape, a.stride(), b.stride(), strict=True))


def _cannot_export(p: torch.Tensor) -> bool:
    return p.layout != torch.strided or p.device.type != "cpu"
