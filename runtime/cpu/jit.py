"""From LLVM IR text to callable machine code: optimise, cache, link.

Every module is compiled on its own, several at a time, and its object code is kept by content
hash (`objects.py`). A `Library` links the objects of one program and gives their addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import re
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphnn.runtime.cpu.objects import FORMAT_VERSION, object_cache
from graphnn.runtime.cpu.support import SUPPORT_IR
from graphnn.runtime.cpu.target import (
    OPT_LEVEL,
    available_cores,
    host_cpu,
    llvm,
    target_machine,
)

__all__ = [
    "CompileError",
    "Library",
    "assembly",
    "cache_status",
    "compile_library",
    "optimized_ir",
]

# Unrolling only where a loop asks for it (`llvm.loop.unroll.*` metadata): by default LLVM unrolls
# constant trip counts fully, into seconds of compile time. The straight-line vectoriser found
# nothing to do in loop kernels and cost up to a quarter of their compile time.
_PIPELINE = {
    "loop_unrolling": False,
    "loop_interleaving": True,
    "loop_vectorization": True,
    "slp_vectorization": False,
}

_NAME = r'@("(?:[^"\\]|\\.)*"|[-\w.$]+)\s*\('
_DEFINED = re.compile(r"^define\s+(?!internal\b|private\b)[^@\n]*" + _NAME, re.MULTILINE)
_DECLARED = re.compile(r"^declare\s+[^@\n]*" + _NAME, re.MULTILINE)
_SUPPORT_LIBRARY = "gnn.support"
_LIBM = "libm.so.6" if sys.platform.startswith("linux") else "libm.dylib"


class CompileError(RuntimeError):
    """LLVM refused a module, or a symbol that a module needs does not exist."""


class Library:
    """Linked machine code. Addresses are valid as long as this object lives."""

    def __init__(self, tracker: Any, names: Iterable[str], object_code: Mapping[str, bytes]):
        self._tracker = tracker
        self.names = tuple(names)
        self.object_code = dict(object_code)

    def address(self, name: str) -> int:
        """Address of the function `name`, as an integer.

        Raises:
            KeyError: no module of this library defines a function of that name.
        """
        if name not in self.names:
            raise KeyError(f"no function {name!r} in this library; it has {', '.join(self.names)}")
        return int(self._tracker[name])

    def __repr__(self) -> str:
        size = sum(map(len, self.object_code.values()))
        return f"<Library of {len(self.names)} functions, {size} bytes of object code>"


def compile_library(
    modules: Sequence[tuple[str, str]], symbols: Mapping[str, int] | None = None
) -> Library:
    """Compile and link modules that may call each other.

    Args:
        modules: pairs of a name, used in messages, and LLVM IR text without triple and data
            layout. Names of non-internal functions must differ across the modules.
        symbols: addresses of functions the modules declare. Functions of the C library and of
            its mathematics part need not be listed.

    Raises:
        CompileError: the text is not valid IR, or a declared function is found nowhere.

    Example:
        >>> text = "define i64 @twice(i64 %x) {\\n %y = add i64 %x, %x\\n ret i64 %y\\n}"
        >>> library = compile_library([("twice", text)])
        >>> ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address("twice"))(21)
        42
    """
    objects = _objects(modules)
    names = [_unquote(name) for _, text in modules for name in _DEFINED.findall(text)]
    twice = (
        {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    )
    if twice:
        raise CompileError(f"functions defined in more than one module: {', '.join(sorted(twice))}")
    builder = llvm().JITLibraryBuilder()
    for code in objects:
        builder.add_object_img(code)
    for name in names:
        builder.export_symbol(name)
    for name, address in _imports(modules, set(names), symbols or {}).items():
        builder.import_symbol(name, address)
    jit = _jit()
    builder.add_jit_library(_SUPPORT_LIBRARY)
    builder.add_current_process()
    try:
        tracker = builder.link(jit, f"gnn.{next(_library_numbers)}")
    except RuntimeError as error:
        labels = ", ".join(name for name, _ in modules)
        raise CompileError(f"cannot link {labels}: {error}") from None
    return Library(tracker, names, {m[0]: code for m, code in zip(modules, objects, strict=True)})


def optimized_ir(text: str) -> str:
    """The module after LLVM's passes for the host CPU, as IR text.

    Raises:
        CompileError: the text is not valid IR.
    """
    with target_machine() as machine:
        return str(_optimized("module", text, machine))


def assembly(text: str) -> str:
    """Host assembly of the module, optimised as `compile_library` does.

    Raises:
        CompileError: the text is not valid IR.
    """
    with target_machine() as machine:
        return str(machine.emit_assembly(_optimized("module", text, machine)))


def cache_status() -> dict[str, object]:
    """State of the object cache: `directory`, `disk` (is it in use), `problem` (why not), `files`,
    `bytes`, `limit`, and `memory_hits`, `disk_hits`, `misses` of this process."""
    return object_cache.status()


def _objects(modules: Sequence[tuple[str, str]]) -> list[bytes]:
    digests = [_digest(text) for _, text in modules]
    found: dict[str, bytes] = {}
    todo: dict[str, tuple[str, str]] = {}
    for digest, module in dict(zip(digests, modules, strict=True)).items():
        code = object_cache.load(digest)
        if code is None:
            todo[digest] = module
        else:
            found[digest] = code
    for digest, code in zip(todo, _compile_all(list(todo.values())), strict=True):
        object_cache.store(digest, code)
        found[digest] = code
    return [found[digest] for digest in digests]


def _compile_all(modules: list[tuple[str, str]]) -> list[bytes]:
    threads = min(len(modules), available_cores())
    if threads <= 1:
        return [_compile(*module) for module in modules]
    # The largest first, so that no thread is left with a big one at the end.
    todo = sorted(range(len(modules)), key=lambda i: len(modules[i][1]))
    done: dict[int, bytes] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while todo and not errors:
            try:
                number = todo.pop()
                done[number] = _compile(*modules[number])
            except IndexError:
                return
            except BaseException as error:
                errors.append(error)

    helpers = [threading.Thread(target=work, daemon=True) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return [done[i] for i in range(len(modules))]


def _compile(name: str, text: str) -> bytes:
    binding = llvm()
    emit = _unlocked("LLVMPY_TargetMachineEmitToMemory")
    library = binding.ffi.lib
    with target_machine() as machine:
        module = _optimized(name, text, machine)
        with binding.ffi.OutputString() as message:
            buffer = emit(machine, module, 1, message)
            if not buffer:
                raise CompileError(f"LLVM cannot emit code for {name}: {message}")
        try:
            start = library.LLVMPY_GetBufferStart(buffer)
            return ctypes.string_at(start, library.LLVMPY_GetBufferSize(buffer))
        finally:
            library.LLVMPY_DisposeMemoryBuffer(buffer)


def _optimized(name: str, text: str, machine: Any) -> Any:
    binding = llvm()
    # A context of its own makes compiling in several threads safe.
    context = binding.create_context()
    try:
        module = binding.parse_assembly(text, context)
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"{name} is not valid LLVM IR: {error}") from None
    options = binding.create_pipeline_tuning_options(speed_level=OPT_LEVEL)
    for option, value in _PIPELINE.items():
        setattr(options, option, value)
    builder = binding.create_pass_builder(machine, options)
    passes = builder.getModulePassManager()
    _unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)
    return module


def _unlocked(name: str) -> Any:
    """llvmlite's C function without its process-wide lock, so that threads compile side by side.

    The two long calls, passes and emission, touch only objects of the calling thread. A llvmlite
    that keeps its functions elsewhere gives the locked one: slower, never wrong.
    """
    function = getattr(llvm().ffi.lib, name)
    return getattr(function, "_cfn", function)


def _digest(text: str) -> str:
    state = hashlib.blake2b(_cache_key(), digest_size=20)
    state.update(text.encode())
    return state.hexdigest()


@functools.cache
def _cache_key() -> bytes:
    return f"{FORMAT_VERSION}|{host_cpu().key}|{OPT_LEVEL}|{sorted(_PIPELINE.items())}|".encode()


_library_numbers = itertools.count()


@functools.cache
def _jit() -> Any:
    """The one linker of the process, with the support library in it."""
    binding = llvm()
    # LLVM may call these for single instructions; most processes hold them already.
    if sys.platform.startswith("linux"):
        with contextlib.suppress(RuntimeError):
            binding.load_library_permanently(_LIBM)
    with target_machine() as machine:
        # Only where JITLink is at home; elsewhere LLVM's older run-time linker.
        jit = binding.create_lljit_compiler(
            machine if sys.platform == "win32" else None, use_jit_link=sys.platform != "win32"
        )
    builder = binding.JITLibraryBuilder().add_ir(SUPPORT_IR)
    # Never disposed: code may still be running when the interpreter ends.
    _immortal.append(builder.link(jit, _SUPPORT_LIBRARY))
    _immortal.append(jit)
    for item in _immortal:
        item._owned = True
    return jit


_immortal: list[Any] = []


def _imports(
    modules: Sequence[tuple[str, str]], defined: set[str], symbols: Mapping[str, int]
) -> dict[str, int]:
    """Addresses of what the modules declare and none of them defines."""
    imports = dict(symbols)
    for label, text in modules:
        for quoted in _DECLARED.findall(text):
            name = _unquote(quoted)
            known = name in defined or name in imports or f"@{name}(" in SUPPORT_IR
            if known or name.startswith("llvm."):
                continue
            address = _c_function(name)
            if address is None:
                raise CompileError(
                    f"{label} declares the function {name!r}, which no module defines, which is "
                    f"not among the symbols given and which the C library does not have"
                )
            imports[name] = address
    return imports


@functools.cache
def _c_libraries() -> tuple[ctypes.CDLL, ...]:
    if sys.platform == "win32":
        return tuple(map(ctypes.CDLL, ("ucrtbase", "msvcrt", "kernel32", "ntdll")))
    process = ctypes.CDLL(None)
    try:
        return (process, ctypes.CDLL(_LIBM))
    except OSError:
        return (process,)


@functools.cache
def _c_function(name: str) -> int | None:
    """Address of a function of the C library, or None."""
    for library in _c_libraries():
        function = getattr(library, name, None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value
    return None


def _unquote(name: str) -> str:
    return name[1:-1] if name.startswith('"') else name
