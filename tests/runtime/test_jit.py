"""Compiling, caching and linking."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphnn.runtime.cpu import jit, objects
from graphnn.runtime.cpu.objects import object_cache
from graphnn.runtime.cpu.support import SUPPORT_IR

from .conftest import ROOT

INT = ctypes.c_int64
UNARY = ctypes.CFUNCTYPE(INT, INT)


def add_ir(name: str, number: int) -> str:
    return f"define i64 @{name}(i64 %x) {{\n  %y = add i64 %x, {number}\n  ret i64 %y\n}}\n"


def call(library: jit.Library, name: str, value: int) -> int:
    return int(UNARY(library.address(name))(value))


def counts() -> tuple[int, int, int]:
    return object_cache.memory_hits, object_cache.disk_hits, object_cache.misses


def change(before: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(now - then for now, then in zip(counts(), before, strict=True))


def test_modules_call_each_other_and_given_symbols(cache_folder: Path) -> None:
    seen: list[int] = []
    hook = ctypes.CFUNCTYPE(None, INT)(seen.append)
    main = (
        "declare i64 @one(i64)\ndeclare void @hook(i64)\n"
        "define i64 @main(i64 %x) {\n  %y = call i64 @one(i64 %x)\n"
        "  call void @hook(i64 %y)\n  ret i64 %y\n}\n"
    )
    address = ctypes.cast(hook, ctypes.c_void_p).value
    assert address is not None
    library = jit.compile_library([("main", main), ("one", add_ir("one", 1))], {"hook": address})
    assert call(library, "main", 41) == 42
    assert seen == [42]
    assert set(library.names) == {"main", "one"}
    assert set(library.object_code) == {"main", "one"}


def test_many_libraries_with_equal_names_live_side_by_side(cache_folder: Path) -> None:
    libraries = [jit.compile_library([("m", add_ir("f", i))]) for i in range(20)]
    assert [call(library, "f", 0) for library in libraries] == list(range(20))
    del libraries[::2]
    assert [call(library, "f", 0) for library in libraries] == list(range(1, 20, 2))


def test_c_library_functions_resolve(cache_folder: Path) -> None:
    text = (
        "declare double @erf(double)\ndeclare double @fmod(double, double)\n"
        "define double @f(double %x) {\n  %a = call double @erf(double %x)\n"
        "  %b = frem double %x, 0.25\n  %c = fadd double %a, %b\n  ret double %c\n}\n"
    )
    library = jit.compile_library([("m", text)])
    function = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(library.address("f"))
    assert function(0.7) == pytest.approx(math.erf(0.7) + 0.7 % 0.25, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("define i64 @f(i64 %x) {\n  ret i32 %x\n}\n", "bad is not valid LLVM IR"),
        ("declare i64 @no_such_thing(i64)\n" + add_ir("f", 1), "'no_such_thing'"),
    ],
)
def test_bad_modules_raise(cache_folder: Path, text: str, message: str) -> None:
    with pytest.raises(jit.CompileError, match=message):
        jit.compile_library([("good", add_ir("good", 1)), ("bad", text)])


def test_double_definition_and_unknown_name_raise(cache_folder: Path) -> None:
    with pytest.raises(jit.CompileError, match="more than one module: f"):
        jit.compile_library([("a", add_ir("f", 1)), ("b", add_ir("f", 2))])
    with pytest.raises(KeyError, match="no function 'g'"):
        jit.compile_library([("a", add_ir("f", 1))]).address("g")


def test_memory_then_disk_then_compile(cache_folder: Path) -> None:
    modules = [("m", add_ir("f", 1000))]
    start = counts()
    jit.compile_library(modules)
    assert change(start) == (0, 0, 1)
    jit.compile_library(modules)
    assert change(start) == (1, 0, 1)
    object_cache.forget()
    assert call(jit.compile_library(modules), "f", 1) == 1001
    assert change(start) == (1, 1, 1)
    status = jit.cache_status()
    assert status["disk"] is True
    assert status["files"] == 1
    assert status["directory"] == str(cache_folder / "cpu")


def test_equal_modules_compile_once(cache_folder: Path) -> None:
    start = counts()
    text = add_ir("f", 5).replace("define", "define internal") + add_ir("g", 6)
    jit.compile_library([("a", text)])
    jit.compile_library([("b", text)])
    assert change(start) == (1, 0, 1)


@pytest.mark.parametrize("damage", [b"", b"gnnobj", b"x" * 100, None])
def test_damaged_file_is_compiled_again(cache_folder: Path, damage: bytes | None) -> None:
    modules = [("m", add_ir("f", 7))]
    jit.compile_library(modules)
    (path,) = cache_folder.rglob("*.o")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?" if damage is None else damage)
    object_cache.forget()
    start = counts()
    assert call(jit.compile_library(modules), "f", 1) == 8
    assert change(start) == (0, 0, 1)
    assert path.read_bytes() == whole


def test_unusable_folder_is_silent(cache_folder: Path) -> None:
    cache_folder.parent.mkdir(exist_ok=True)
    cache_folder.write_text("a file where the folder should be")
    assert call(jit.compile_library([("m", add_ir("f", 8))]), "f", 1) == 9
    status = jit.cache_status()
    assert status["disk"] is False
    assert status["problem"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_read_only_folder_is_silent(cache_folder: Path) -> None:
    cache_folder.mkdir()
    cache_folder.chmod(0o500)
    assert call(jit.compile_library([("m", add_ir("f", 9))]), "f", 1) == 10
    assert jit.cache_status()["disk"] is False


def test_turned_off(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHNN_CACHE_BYTES", "0")
    assert call(jit.compile_library([("m", add_ir("f", 10))]), "f", 1) == 11
    assert not cache_folder.exists()
    assert jit.cache_status()["disk"] is False


def test_pruning_drops_what_was_used_longest_ago(cache_folder: Path) -> None:
    for i in range(10):
        object_cache.store(f"{i:02x}{'0' * 38}", bytes(1000))
    paths = sorted(cache_folder.rglob("*.o"))
    for age, path in enumerate(paths):
        os.utime(path, (1e9 - age, 1e9 - age))
    leftover = paths[0].with_name(".new-1-1-x.o")
    leftover.write_bytes(b"half a file")
    os.utime(leftover, (1, 1))
    assert objects.prune(6000) > 0
    left = sorted(cache_folder.rglob("*.o"))
    assert left == paths[: len(left)]
    assert 0 < sum(path.stat().st_size for path in left) <= 6000
    assert not leftover.exists()


def test_processes_share_one_folder(cache_folder: Path) -> None:
    code = (
        "from graphnn.runtime.cpu import compile_library, cache_status\n"
        "texts = [f'define i64 @f{i}() {{\\n ret i64 {i}\\n}}\\n' for i in range(30)]\n"
        "compile_library([(f'm{i}', t) for i, t in enumerate(texts)])\n"
        "print(cache_status()['problem'])"
    )
    start = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in start] == ["None"] * 3
    assert len(list(cache_folder.rglob("*.o"))) == 30
    assert not list(cache_folder.rglob(".new-*"))


def test_threads_compile_side_by_side(cache_folder: Path) -> None:
    results: dict[int, int] = {}

    def work(number: int) -> None:
        library = jit.compile_library([(f"m{i}", add_ir(f"f{i}", i)) for i in range(8)])
        results[number] = sum(call(library, f"f{i}", number) for i in range(8))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: 28 + 8 * i for i in range(4)}


def test_text_stages() -> None:
    text = add_ir("f", 3)
    assert "@f(" in jit.optimized_ir(text)
    assert "target triple" in jit.optimized_ir(text)
    assert "f:" in jit.assembly(text) or "_f:" in jit.assembly(text)


def test_import_is_lazy(run_python: Callable[..., str]) -> None:
    code = (
        "import sys, graphnn.runtime.cpu, graphnn.runtime.memory\n"
        "print([m for m in ('llvmlite', 'scipy', 'scipy_openblas32') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def convert(function: str, source: str, target: str, values: np.ndarray, out: np.ndarray) -> None:
    """Run one of the support functions, under a name of its own, over an array."""
    loop = (
        f"declare {target} @own{function}({source})\n"
        "define void @all(ptr %a, ptr %b, i64 %n) {\nentry:\n  br label %loop\nloop:\n"
        "  %i = phi i64 [ 0, %entry ], [ %j, %loop ]\n"
        f"  %p = getelementptr {source}, ptr %a, i64 %i\n  %x = load {source}, ptr %p\n"
        f"  %y = call {target} @own{function}({source} %x)\n"
        f"  %q = getelementptr {target}, ptr %b, i64 %i\n  store {target} %y, ptr %q\n"
        "  %j = add i64 %i, 1\n  %more = icmp slt i64 %j, %n\n"
        "  br i1 %more, label %loop, label %exit\nexit:\n  ret void\n}\n"
    )
    support = SUPPORT_IR.replace("@__", "@own__")
    library = jit.compile_library([("loop", loop), ("support", support)])
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, INT)(library.address("all"))
    run(values.ctypes.data, out.ctypes.data, values.size)


def hard_values(kind: type) -> np.ndarray:
    """Every half, every midpoint of two neighbours, what lies just beside, and the extremes."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = np.sort(halves[np.isfinite(halves)].astype(np.float64))
    middle = (halves[1:] + halves[:-1]) / 2
    edges = [np.inf, -np.inf, np.nan, 65519.0, 65520.0, -65536.0, 1e30, 1e-30, 0.0, -0.0]
    near = [np.nextafter(middle.astype(kind), kind(sign * np.inf)) for sign in (1, -1)]
    return np.concatenate([halves, middle, *near, edges]).astype(kind)


@pytest.mark.parametrize(("name", "kind"), [("float", np.float32), ("double", np.float64)])
def test_support_narrows_to_half(name: str, kind: type) -> None:
    values = hard_values(kind)
    out = np.empty(values.shape, np.float16)
    convert("__truncsfhf2" if kind is np.float32 else "__truncdfhf2", name, "half", values, out)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    nan = np.isnan(values)
    assert np.isnan(out[nan]).all()
    np.testing.assert_array_equal(out[~nan].view(np.uint16), expected[~nan].view(np.uint16))


def test_support_widens_half() -> None:
    values = np.arange(65536, dtype=np.uint16).view(np.float16)
    out = np.empty(values.shape, np.float32)
    convert("__extendhfsf2", "half", "float", values, out)
    np.testing.assert_array_equal(out, values.astype(np.float32))


def test_support_narrows_to_bfloat16() -> None:
    import ml_dtypes

    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    out = np.empty(values.shape, np.uint16)
    convert("__truncsfbf2", "float", "bfloat", values, out)
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    nan = np.isnan(values)
    assert np.isnan(out[nan].view(ml_dtypes.bfloat16).astype(np.float32)).all()
    np.testing.assert_array_equal(out[~nan], expected[~nan])
    # From f64 in one rounding: just above a midpoint goes up, though f32 would round onto it.
    tricky = np.array([1 + 2**-8 + 2**-40, -(1 + 2**-8 + 2**-40), 1 + 2**-8, 1e300, np.nan])
    out = np.empty(tricky.shape, np.uint16)
    convert("__truncdfbf2", "double", "bfloat", tricky, out)
    assert [hex(v) for v in out[:4]] == ["0x3f81", "0xbf81", "0x3f80", "0x7f80"]
    assert (out[4] & 0x7FFF) > 0x7F80


def test_support_library_is_found_by_linked_code() -> None:
    text = (
        "declare half @__truncdfhf2(double)\n"
        "define i16 @f(double %x) {\n  %h = call half @__truncdfhf2(double %x)\n"
        "  %b = bitcast half %h to i16\n  ret i16 %b\n}\n"
    )
    library = jit.compile_library([("m", text)])
    function = ctypes.CFUNCTYPE(ctypes.c_uint16, ctypes.c_double)(library.address("f"))
    assert function(1.5) == 0x3E00
