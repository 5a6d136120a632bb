"""Reads, in one call, where every parameter, gradient and state lies, and checks that nothing moved.

A Python tensor holds a C++ tensor; one compiled loop follows that pointer and asks torch's C functions (the
stable ones that compiled models use) about each. So no Python object is made for a gradient that the backward
pass has just left, which alone would cost more than the step. Where this torch does not export the functions,
`read_slowly` does the same in Python; it also prepares what the kernels cannot read as it stands: a gradient
of other strides, a lazily negated or conjugated one.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .compiler import c_function, compile_function

FINE, CHANGED, OTHER_GRADIENT, STATE_CHANGED = range(4)
"""What `read` answers: all as planned; a parameter's layout, a gradient's or a state's differs."""

_SHIM = ("data_ptr", "dim", "sizes", "strides", "dtype", "device_type", "layout")
_OTHERS = {
    "grad": "_ZNK3c1010TensorImpl4gradEv",
    "is_neg": "_ZN2at6native6is_negERKNS_6TensorE",
    "is_conj": "_ZN2at6native7is_conjERKNS_6TensorE",
}

_IR = """
define internal ptr @field(ptr %ctx, i64 %k) alwaysinline {
  %at = getelementptr ptr, ptr %ctx, i64 %k
  %v = load ptr, ptr %at
  ret ptr %v
}

; a number for type, device, layout, shape and strides of a tensor; -1 where torch will not tell
define i64 @signature(ptr %ctx, ptr %tensor) {
entry:
  %a = alloca i32
  %b = alloca i32
  %c = alloca i32
  %n_at = alloca i64
  %shape_at = alloca ptr
  %strides_at = alloca ptr
  %dtype = call ptr @field(ptr %ctx, i64 10)
  %e1 = call i32 %dtype(ptr %tensor, ptr %a)
  %device = call ptr @field(ptr %ctx, i64 11)
  %e2 = call i32 %device(ptr %tensor, ptr %b)
  %layout = call ptr @field(ptr %ctx, i64 12)
  %e3 = call i32 %layout(ptr %tensor, ptr %c)
  %av = load i32, ptr %a
  %bv = load i32, ptr %b
  %cv = load i32, ptr %c
  %strided_p = call ptr @field(ptr %ctx, i64 16)
  %strided_64 = ptrtoint ptr %strided_p to i64
  %strided = trunc i64 %strided_64 to i32
  %dense = icmp eq i32 %cv, %strided
  br i1 %dense, label %ask, label %fail
ask:
  %dim = call ptr @field(ptr %ctx, i64 7)
  %e4 = call i32 %dim(ptr %tensor, ptr %n_at)
  %sizes = call ptr @field(ptr %ctx, i64 8)
  %e5 = call i32 %sizes(ptr %tensor, ptr %shape_at)
  %strides_of = call ptr @field(ptr %ctx, i64 9)
  %e6 = call i32 %strides_of(ptr %tensor, ptr %strides_at)
  %o1 = or i32 %e1, %e2
  %o2 = or i32 %e3, %e4
  %o3 = or i32 %e5, %e6
  %o4 = or i32 %o1, %o2
  %o5 = or i32 %o4, %o3
  %told = icmp eq i32 %o5, 0
  br i1 %told, label %start, label %fail
start:
  %n = load i64, ptr %n_at
  %shape = load ptr, ptr %shape_at
  %strides = load ptr, ptr %strides_at
  %a64 = zext i32 %av to i64
  %b64 = zext i32 %bv to i64
  %high = shl i64 %b64, 32
  %seed = or i64 %a64, %high
  br label %check
check:
  %i = phi i64 [ 0, %start ], [ %i2, %next ]
  %h = phi i64 [ %seed, %start ], [ %h4, %next ]
  %more = icmp slt i64 %i, %n
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
  %positive = and i64 %h, 9223372036854775807
  ret i64 %positive
fail:
  ret i64 -1
}

define internal i1 @lazy(ptr %ctx, ptr %tensor) {
  %neg = call ptr @field(ptr %ctx, i64 14)
  %n = call zeroext i1 %neg(ptr %tensor)
  %conj = call ptr @field(ptr %ctx, i64 15)
  %c = call zeroext i1 %conj(ptr %tensor)
  %r = or i1 %n, %c
  ret i1 %r
}

define internal void @address(ptr %ctx, ptr %tensor, ptr %into) {
  %data = call ptr @field(ptr %ctx, i64 6)
  %e = call i32 %data(ptr %tensor, ptr %into)
  ret void
}

; ctx: n, k, how many to look at, cells [n, k], signatures [k, n], addresses [n, k],
; torch's functions, the strided layout, the undefined tensor, how many gradients are missing
define i64 @gather(ptr %ctx) {
entry:
  %n_p = call ptr @field(ptr %ctx, i64 0)
  %n = ptrtoint ptr %n_p to i64
  %k_p = call ptr @field(ptr %ctx, i64 1)
  %k = ptrtoint ptr %k_p to i64
  %looked_p = call ptr @field(ptr %ctx, i64 2)
  %looked = ptrtoint ptr %looked_p to i64
  %cells = call ptr @field(ptr %ctx, i64 3)
  %wanted = call ptr @field(ptr %ctx, i64 4)
  %addresses = call ptr @field(ptr %ctx, i64 5)
  %grad = call ptr @field(ptr %ctx, i64 13)
  %undefined = call ptr @field(ptr %ctx, i64 17)
  %missing_at = getelementptr i64, ptr %ctx, i64 18
  store i64 0, ptr %missing_at
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i2, %next ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %param, label %done
param:
  %first = mul i64 %i, %k
  %cell_at = getelementptr ptr, ptr %cells, i64 %first
  %p = load ptr, ptr %cell_at
  %a_at = getelementptr ptr, ptr %addresses, i64 %first
  %h = call i64 @signature(ptr %ctx, ptr %p)
  %want_at = getelementptr i64, ptr %wanted, i64 %i
  %want = load i64, ptr %want_at
  %same = icmp eq i64 %h, %want
  br i1 %same, label %own, label %changed
own:
  %turned = call i1 @lazy(ptr %ctx, ptr %p)
  br i1 %turned, label %changed, label %gradient
gradient:
  call void @address(ptr %ctx, ptr %p, ptr %a_at)
  %impl = load ptr, ptr %p
  %g = call ptr %grad(ptr %impl)
  %g_impl = load ptr, ptr %g
  %ga_at = getelementptr ptr, ptr %a_at, i64 1
  %absent = icmp eq ptr %g_impl, %undefined
  br i1 %absent, label %skip, label %present
skip:
  store ptr null, ptr %ga_at
  %m = load i64, ptr %missing_at
  %m1 = add i64 %m, 1
  store i64 %m1, ptr %missing_at
  br label %states
present:
  %hg = call i64 @signature(ptr %ctx, ptr %g)
  %slot_g = add i64 %n, %i
  %want_g_at = getelementptr i64, ptr %wanted, i64 %slot_g
  %want_g = load i64, ptr %want_g_at
  %same_g = icmp eq i64 %hg, %want_g
  br i1 %same_g, label %plain, label %other
plain:
  %lazy_g = call i1 @lazy(ptr %ctx, ptr %g)
  br i1 %lazy_g, label %other, label %keep
keep:
  call void @address(ptr %ctx, ptr %g, ptr %ga_at)
  br label %states
states:
  %j = phi i64 [ 2, %skip ], [ 2, %keep ], [ %j2, %kept ]
  %smore = icmp slt i64 %j, %looked
  br i1 %smore, label %state, label %next
state:
  %s_at = getelementptr ptr, ptr %cell_at, i64 %j
  %s = load ptr, ptr %s_at
  %hs = call i64 @signature(ptr %ctx, ptr %s)
  %row = mul i64 %j, %n
  %slot = add i64 %row, %i
  %want_s_at = getelementptr i64, ptr %wanted, i64 %slot
  %want_s = load i64, ptr %want_s_at
  %same_s = icmp eq i64 %hs, %want_s
  br i1 %same_s, label %kept, label %statechanged
kept:
  %sa_at = getelementptr ptr, ptr %a_at, i64 %j
  call void @address(ptr %ctx, ptr %s, ptr %sa_at)
  %j2 = add i64 %j, 1
  br label %states
next:
  %i2 = add i64 %i, 1
  br label %check
done:
  ret i64 0
changed:
  ret i64 1
other:
  ret i64 2
statechanged:
  ret i64 3
}
"""


@dataclass(frozen=True)
class Native:
    """What the compiled loop needs of this torch: `cell` is where a Python tensor keeps its C++ tensor."""

    functions: tuple[int, ...]
    cell: int
    strided: int
    undefined: int
    gather: Any
    signature: Any


def library(stem: str) -> ctypes.CDLL:
    folder = Path(torch.__file__).parent / "lib"
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return ctypes.CDLL(str(folder / f"lib{stem}.{suffix}"))


@cache
def native() -> Native | None:
    """torch's C functions, or None where this torch or this Python does not have them as expected."""
    try:
        core, cpu = library("c10"), library("torch_cpu")
        found = [getattr(cpu, f"aoti_torch_get_{name}") for name in _SHIM]
        found += [getattr(core if name == "grad" else cpu, symbol) for name, symbol in _OTHERS.items()]
    except (OSError, AttributeError):
        return None
    addresses = tuple(ctypes.cast(f, ctypes.c_void_p).value or 0 for f in found)
    examples = [torch.zeros(2), torch.nn.Parameter(torch.zeros(3)), torch.zeros(2, 2).t()]
    cell = _cell(examples)
    if cell is None:
        return None
    grad = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(addresses[len(_SHIM)])
    undefined = _word(grad(examples[0]._cdata) or 0)
    layout = ctypes.c_int32()
    get_layout = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int32))
    if get_layout(addresses[6])(id(examples[0]) + cell, ctypes.byref(layout)):
        return None
    gather = c_function(compile_function(_IR, "gather"), ctypes.c_int64, ctypes.c_void_p, with_gil=True)
    signature = c_function(
        compile_function(_IR, "signature"), ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
    )
    return Native(addresses, cell, layout.value, undefined, gather, signature)


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _cell(examples: list[torch.Tensor]) -> int | None:
    """How far into a Python tensor the pointer to its C++ tensor stands: the one place where all agree."""
    start = object.__basicsize__
    places = range(start, start + 64, 8)
    agreeing = [at for at in places if all(_word(id(t) + at) == t._cdata for t in examples)]
    return agreeing[0] if len(agreeing) == 1 else None


class Gatherer:
    """Reads the addresses of `n` parameters with `k` operands each (parameter, gradient, states).

    `addresses` is an int64 array [n, k], zero where a parameter has no gradient in this step. With `private`
    nobody else holds the states, so nobody can have moved them, and they are not looked at. A parameter with
    gaps between its elements is copied into a dense one before the step, and back after it.
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
        self.addresses = np.zeros((len(params), 2 + len(states)), np.int64)
        self.missing = 0
        self.kept: list[torch.Tensor] = []
        self._gradient_dtypes = [
            p.dtype if g is None else g.dtype for p, g in zip(params, gradients, strict=True)
        ]
        self._shapes = [[s.shape for s in column] for column in states]
        self._dense = {i: torch.empty_like(p) for i, p in enumerate(params) if not is_dense(p)}
        found = native() if not self._dense else None
        held = [*params, *(s for column in states for s in column)]
        self.is_quick = found is not None and all(_word(id(x) + found.cell) == x._cdata for x in held)
        if found is not None and self.is_quick:
            self._prepare(found)

    def _prepare(self, native: Native) -> None:
        n, k = self.addresses.shape
        cells = np.zeros((n, k), np.int64)
        cells[:, 0] = [id(p) + native.cell for p in self.params]
        for j, column in enumerate(self.states):
            cells[:, 2 + j] = [id(s) + native.cell for s in column]
            self.addresses[:, 2 + j] = [s.data_ptr() for s in column]
        ctx = (ctypes.c_int64 * 19)()
        ctx_at = ctypes.addressof(ctx)
        ctx[6:16] = list(native.functions)
        ctx[16:18] = [native.strided, native.undefined]

        def signature(x: torch.Tensor) -> int:
            return int(native.signature(ctx_at, id(x) + native.cell))

        wanted = np.zeros((k, n), np.int64)
        wanted[0] = [signature(p) for p in self.params]
        pairs = zip(self.params, self._gradient_dtypes, wanted[0], strict=True)
        wanted[1] = [h if d == p.dtype else signature(torch.empty_like(p, dtype=d)) for p, d, h in pairs]
        for j, column in enumerate(self.states):
            wanted[2 + j] = [signature(s) for s in column]
        places = [x.ctypes.data for x in (cells, wanted, self.addresses)]
        ctx[0:6] = [n, k, 2 if self.private else k, *places]
        self._alive = (cells, wanted)
        self._ctx, self._ctx_at, self._gather = ctx, ctx_at, native.gather

    def read(self) -> int:
        """Fill `addresses` and count gradients that are None in `missing`; FINE, or what differs."""
        self.kept = []
        if not self.is_quick:
            return self.read_slowly()
        answer = int(self._gather(self._ctx_at))
        self.missing = self._ctx[18]
        return answer

    def words(self) -> dict[str, int]:
        """Where a replay finds what `read` reads, and how many gradients were None."""
        return {"gatherer": self._ctx_at, "missing": self._ctx_at + 8 * 18}

    def read_slowly(self) -> int:
        """As `read`, in Python; gradients that the kernels cannot read are copied first (into `kept`)."""
        self.kept, self.missing = [], 0
        for i, given in enumerate(self.params):
            g, p = given.grad, given.detach()
            if i in self._dense:
                p = self._dense[i].copy_(p)
            self.addresses[i, 0] = p.data_ptr()
            self.addresses[i, 1] = 0
            for j, column in enumerate(self.states):
                self.addresses[i, 2 + j] = column[i].data_ptr()
                shape = self._shapes[j][i]
                fits = same_layout(column[i], p) if shape == p.shape else column[i].is_contiguous()
                if column[i].shape != shape or not fits:
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

    def write_back(self) -> None:
        """Copy what the kernel wrote into the parameters that have gaps."""
        for i, dense in self._dense.items():
            if self.addresses[i, 1]:
                self.params[i].detach().copy_(dense)


def is_dense(p: torch.Tensor) -> bool:
    """Whether a tensor fills its memory without gaps or overlaps, in whatever order."""
    if p.numel() < 2:
        return True
    expected = 1
    for stride, size in sorted((st, s) for st, s in zip(p.stride(), p.shape, strict=True) if s != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one shape lie in memory in the same order."""
    if a.shape != b.shape:
        return False
    return all(s == 1 or x == y for s, x, y in zip(a.shape, a.stride(), b.stride(), strict=True))
