"""Compiles LLVM IR for this machine and keeps the machine code on disk."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

_alive: list[Any] = []  # engines own the machine code, which must outlive every call of it


def cache_directory() -> Path:
    """Where machine code is kept: $DESCEND_CACHE_DIR, or the user's cache directory."""
    given = os.environ.get("DESCEND_CACHE_DIR")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "descend" / "kernels"


@cache
def _target() -> tuple[Any, str, str]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu = llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    # the medium code model lets cached code be loaded anywhere
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
    return machine, cpu, features


@cache
def vector_width() -> int:
    """How many float32 fit a vector register of this machine: 16, 8 or 4."""
    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx2") else 4


@cache
def divider_is_slow() -> bool:
    """Whether a root costs more than the fourteen instructions that make one; on AMD's it does not."""
    return not _is_zen()


def _is_zen() -> bool:
    return str(llvm.get_host_cpu_name()).startswith("znver")


@cache
def prefetches_far() -> bool:
    """Whether the cores look far enough ahead of a loop by themselves, dividing too; Intel's do not."""
    return _is_zen()


@cache
def has_tiles() -> bool:
    """Whether this machine multiplies whole tiles of bfloat16 matrices (AMX)."""
    return bool(llvm.get_host_cpu_features().get("amx-bf16"))


def optimised(ir: str) -> Any:
    """The module of `ir` after LLVM's passes."""
    machine, _, _ = _target()
    module = llvm.parse_assembly(ir)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = False  # a third of the time to compile, and the loops wait for memory anyway
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def assembly(ir: str) -> str:
    """The machine code of `ir` as this machine's assembler writes it."""
    text = _target()[0].emit_assembly(optimised(ir))
    assert isinstance(text, str)
    return text


def compile_function(ir: str, name: str) -> int:
    """The address of a function of `ir`, compiled now or read from the disk cache."""
    return compile_functions(ir, (name,))[0]


def compile_functions(ir: str, names: Sequence[str]) -> list[int]:
    """The addresses of several functions of one module."""
    machine, cpu, features = _target()
    key = "\0".join([ir, llvmlite.__version__, cpu, features])
    path = cache_directory() / f"{hashlib.sha256(key.encode()).hexdigest()}.o"
    code = _read(path)
    if code is None:
        code = machine.emit_object(optimised(ir))
        _write(path, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _fresh_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _alive.append(engine)
    addresses = [int(engine.get_function_address(name)) for name in names]
    assert all(addresses)
    return addresses


def is_x86() -> bool:
    """Whether this machine's processor is one of the x86-64 family."""
    return platform.machine().lower() in ("x86_64", "amd64")


def pause() -> tuple[str, str]:
    """What a waiting thread does to leave the core to its neighbour, and the declaration of it."""
    machine = platform.machine().lower()
    if is_x86():
        return "call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"
    if machine in ("aarch64", "arm64"):
        return "call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"
    return "", ""


def _fresh_machine() -> Any:
    _, cpu, features = _target()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, jit=True
    )


def _read(path: Path) -> bytes | None:
    """Machine code from the cache, or None when it is absent or damaged (its hash stands in front)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code = content[32:]
    return code if hashlib.sha256(code).digest() == content[:32] else None


def _write(path: Path, code: bytes) -> None:
    """Keep machine code; a cache that cannot be written only costs the next process its time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(temporary).replace(path)
    except OSError:
        return


def c_function(address: int, result: Any, *arguments: Any, with_gil: bool = False) -> Any:
    """A Python callable of a compiled function; with `with_gil` the call keeps Python's lock."""
    make = ctypes.PYFUNCTYPE if with_gil else ctypes.CFUNCTYPE
    return make(result, *arguments)(address)


class _Method(ctypes.Structure):
    """Python's description of a function in C (PyMethodDef)."""

    _fields_ = (
        *(("name", ctypes.c_char_p), ("function", ctypes.c_void_p)),
        *(("flags", ctypes.c_int), ("doc", ctypes.c_char_p)),
    )


_FASTCALL = 0x80  # METH_FASTCALL: function(self, arguments, how many)


@cache
def _method(address: int) -> _Method:
    method = _Method(b"compiled", address, _FASTCALL, None)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(method))  # it has to outlive every builtin of it
    return method


class _Address(int):
    """An address, and what must not be freed for as long as somebody may call what reads it."""

    alive: Any


def builtin(address: int, data: int, alive: Any) -> Any:
    """A compiled `function(self, arguments, n)` as Python's own functions are; its self is a number, `data`.

    It takes and gives Python objects, holds Python's lock, and is called in a tenth of a `c_function`'s time.
    """
    number = _Address(data)
    number.alive = alive
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.argtypes = [ctypes.POINTER(_Method), ctypes.py_object, ctypes.c_void_p]
    make.restype = ctypes.py_object
    return make(ctypes.byref(_method(address)), number, None)


def announce(functions: Mapping[str, Any]) -> None:
    """Tell compiled code where functions of C libraries lie that it calls by these names."""
    for name, function in functions.items():
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
