"""Loop form to LLVM IR text.

Each kernel becomes up to three functions `void @name(ptr buffers, ptr sizes, i64 begin, i64 end,
i64 part)`. Loops are plain and scalar; LLVM's vectoriser turns them into vector code. Loops whose
iterations are independent say so in metadata, so that no overlap of buffers has to be tested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from graphnn.compiler.codegen import llvm_math
from graphnn.compiler.codegen.llvm_scalar import ScalarPrinter, literal, llvm_type
from graphnn.compiler.codegen.loops import (
    PART,
    Combine,
    Kernel,
    Loop,
    Product,
    Reset,
    Statement,
    Store,
    Update,
    scalars,
)
from graphnn.compiler.codegen.scalar import Accumulator, Buffer, Scalar, expressions
from graphnn.compiler.ir.sizes import Dynamic, FloorDiv, Symbol, Var, bounds
from graphnn.compiler.ir.types import DType, bfloat16, bool_, float16

SIZES_BEFORE = 2  # sizes[0] is the failed check, sizes[1] its value; symbols follow


@dataclass(frozen=True)
class KernelText:
    """One kernel as an LLVM module. `name` is its function; `.start` and `.finish` may exist."""

    name: str
    text: str
    has_start: bool
    has_finish: bool


def print_kernel(kernel: Kernel) -> KernelText:
    """The module of a kernel; equal kernels give equal texts and names."""
    printer = _Module(kernel)
    body = printer.text("@K@")
    name = f"{kernel.stem}_{hashlib.sha256(body.encode()).hexdigest()[:12]}"
    text = body.replace("@K@", name)
    return KernelText(name, text, bool(kernel.start), bool(kernel.finish))


class _Module:
    """Functions of one kernel and what they need: maths, intrinsics, metadata."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.maths: set[tuple[str, int]] = set()
        self.declared: dict[str, str] = {}
        self.loops = 0

    def text(self, name: str) -> str:
        k = self.kernel
        main = _Function(self, name).ranged(k)
        functions = [main]
        if k.start:
            functions.append(_Function(self, f"{name}.start").once(k.start))
        if k.finish:
            functions.append(_Function(self, f"{name}.finish").once(k.finish))
        parts = [*functions, llvm_math.definitions(sorted(self.maths))]
        known = "\n".join(parts)
        parts += [d for n, d in sorted(self.declared.items()) if f"declare {d}" not in known]
        parts.append(self.metadata())
        return "\n".join(p for p in parts if p)

    def declare(self, name: str, result: str, *arguments: str) -> str:
        """An intrinsic's name, declared once."""
        self.declared[name] = f"declare {result} @{name}({', '.join(arguments)})"
        return f"@{name}"

    def check_number(self, site: Any) -> int:
        """Number of a runtime check within the kernel, from 1."""
        return self.kernel.checks.index(site) + 1

    def loop_metadata(self, independent: bool) -> str:
        """Metadata of a loop's back edge."""
        self.loops += 1
        return f"!{10 + 2 * self.loops + (0 if independent else 1)}"

    def metadata(self) -> str:
        lines = ["!1 = distinct !{}", '!2 = !{!"llvm.loop.parallel_accesses", !1}']
        lines.append('!3 = !{!"llvm.loop.unroll.runtime.disable"}')
        for k in range(1, self.loops + 1):
            for offset, extra in ((0, ", !2, !3"), (1, ", !3")):
                n = 10 + 2 * k + offset
                lines.append(f"!{n} = distinct !{{!{n}{extra}}}")
        return "\n".join(lines)


@dataclass
class _Scope:
    """A region of code: what is computed in it, and which variables it brings."""

    provides: frozenset[Any]
    values: dict[int, str] = field(default_factory=dict)


class _Function(ScalarPrinter):
    """Text of one function, emitted top to bottom."""

    module: _Module

    def __init__(self, module: _Module, name: str) -> None:
        self.module, self.name = module, name
        self.head: list[str] = []
        self.lines: list[str] = []
        self.count = 0
        self.block = "entry"
        self.scopes = [_Scope(frozenset())]
        self.buffers: dict[Buffer, str] = {}
        self.vars: dict[Any, str] = {}
        self.slots: dict[Accumulator, str] = {}
        self.sizes: dict[str, str] = {}
        self.tag = ""  # access group of the loop that is being emitted

    # ---- whole functions -------------------------------------------------------------

    def ranged(self, kernel: Kernel) -> str:
        """The function over rows [begin, end)."""
        self._open(kernel)
        self.statements(kernel.enter)
        if kernel.row is None or (isinstance(kernel.body[0], Product) and kernel.body[0].split):
            self.statements(kernel.body)
        else:
            inner = all(not isinstance(s, Loop) for s in kernel.body)
            self.loop(kernel.row, "%begin", "%end", kernel.body, independent=inner)
        self.statements(kernel.leave)
        return self._close()

    def once(self, statements: tuple[Statement, ...]) -> str:
        """A function that runs once."""
        self._open(self.module.kernel)
        self.statements(statements)
        return self._close()

    def _open(self, kernel: Kernel) -> None:
        for position, buffer in enumerate(kernel.buffers):
            name = f"%{buffer.name}"
            self.head.append(f"  {name}.p = getelementptr ptr, ptr %buffers, i64 {position}")
            self.head.append(f"  {name} = load ptr, ptr {name}.p")
            self.buffers[buffer] = name
        for position, symbol in enumerate(kernel.symbols):
            name = f"%n.{symbol}"
            at = SIZES_BEFORE + position
            self.head.append(f"  {name}.p = getelementptr i64, ptr %sizes, i64 {at}")
            self.head.append(f"  {name} = load i64, ptr {name}.p")
            self.sizes[symbol] = name
        self.vars[PART] = "%part"

    def _close(self) -> str:
        text = "\n".join(self.head + self.lines)
        return (
            f"define void @{self.name}(ptr noalias %buffers, ptr noalias %sizes, i64 %begin, "
            f"i64 %end, i64 %part) nounwind {{\nentry:\n{text}\n  ret void\n}}\n"
        )

    # ---- small tools -----------------------------------------------------------------

    def new(self, text: str) -> str:
        """A new register holding the result of an instruction."""
        self.count += 1
        self.lines.append(f"  %v{self.count} = {text}")
        return f"%v{self.count}"

    def do(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def label(self, stem: str) -> str:
        """A new label."""
        self.count += 1
        return f"{stem}{self.count}"

    def begin(self, label: str) -> None:
        """Start a block."""
        self.lines.append(f"{label}:")
        self.block = label

    # ---- statements ------------------------------------------------------------------

    def statements(self, statements: Iterable[Statement]) -> None:
        """Emit statements in order."""
        for s in statements:
            match s:
                case Loop(var, body, independent, extent):
                    end = self.index(var.extent if extent is None else extent)
                    if end == "0":  # what is moved out of a loop must be right to compute once
                        continue
                    self.loop(var, "0", end, body, independent)
                case Reset(accumulator):
                    slot = self.slot(accumulator)
                    kind = llvm_type(accumulator.dtype)
                    start = literal(accumulator.initial, accumulator.dtype)
                    self.do(f"store {kind} {start}, ptr {slot}")
                case Update(accumulator, value):
                    self.update(accumulator, value)
                case Store(buffer, linear, value):
                    self.store(buffer, linear, self.value(value))
                case Combine(buffer, linear, value, monoid):
                    self.combine(buffer, linear, value, monoid)
                case Product():
                    self.product(s)

    def loop(
        self, var: Var, begin: str, end: str, body: tuple[Statement, ...], independent: bool
    ) -> None:
        """for var in [begin, end): body."""
        self.hoist(body, var)
        head, inside, leave = self.label("head"), self.label("body"), self.label("exit")
        before = self.block
        counter = f"%{var.name}.{head}"
        self.do(f"br label %{head}")
        self.begin(head)
        phi = len(self.lines)
        self.lines.append("")
        test = self.new(f"icmp slt i64 {counter}, {end}")
        self.do(f"br i1 {test}, label %{inside}, label %{leave}")
        self.begin(inside)
        self.vars[var] = counter
        self.scopes.append(_Scope(frozenset((var,))))
        innermost = not any(isinstance(s, Loop) for s in body)
        outer, self.tag = self.tag, ", !llvm.access.group !1" if innermost and independent else ""
        self.statements(body)
        self.tag = outer
        self.scopes.pop()
        following = self.new(f"add nsw i64 {counter}, 1")
        self.lines[phi] = (
            f"  {counter} = phi i64 [ {begin}, %{before} ], [ {following}, %{self.block} ]"
        )
        mark = self.module.loop_metadata(innermost and independent)
        self.do(f"br label %{head}, !llvm.loop {mark}")
        self.begin(leave)

    def hoist(self, body: tuple[Statement, ...], var: Var) -> None:
        """Compute before a loop what does not change in it (loads too: LLVM cannot know)."""
        updated = {s.accumulator for s in _deep(body) if isinstance(s, Update | Reset)}
        changing = {var, *updated, *(s.var for s in _deep(body) if isinstance(s, Loop))}
        written = {s.buffer for s in _deep(body) if isinstance(s, Store | Combine)}
        for s in _deep(body):
            for root in scalars(s):
                self._hoist_value(root, changing, written)

    def _hoist_value(self, value: Scalar, changing: set[Any], written: set[Buffer]) -> None:
        stack = [value]
        seen: set[int] = set()
        while stack:
            v = stack.pop()
            if id(v) in seen or v.op == "constant":
                continue
            seen.add(id(v))
            if not v.needs & changing and not _touches(v, written):
                self.value(v)
            else:
                stack += v.args[:1] if v.op == "guarded" else v.args

    def slot(self, accumulator: Accumulator) -> str:
        """Stack slot of an accumulator; LLVM makes it a register."""
        if accumulator not in self.slots:
            name = f"%acc.{accumulator.name}"
            self.slots[accumulator] = name
            self.head.append(f"  {name} = alloca {llvm_type(accumulator.dtype)}")
        return self.slots[accumulator]

    def update(self, accumulator: Accumulator, value: Scalar) -> None:
        slot, kind = self.slot(accumulator), llvm_type(accumulator.dtype)
        new = self.value(value)
        old = self.new(f"load {kind}, ptr {slot}")
        result = self.monoid(accumulator.monoid, accumulator.dtype, old, new)
        self.do(f"store {kind} {result}, ptr {slot}")

    def combine(self, buffer: Buffer, linear: Any, value: Scalar, monoid: str) -> None:
        new = self.value(value)
        old = self.load(buffer, linear)
        self.store(buffer, linear, self.monoid(monoid, value.dtype, old, new))

    def product(self, p: Product) -> None:
        """A call of the library's gemm for the rows [begin, end) of the split axis."""
        m, n, k = map(self.index, (p.m, p.n, p.k))
        lda, ldb = (m if p.transpose[0] else k), (k if p.transpose[1] else n)
        a, b, c = (self.address(x, at) for x, at in zip((p.a, p.b, p.c), p.at, strict=True))
        ldc = n
        kind = llvm_type(p.c.dtype)
        if p.split:
            count = self.new("sub i64 %end, %begin")
            if p.split == "m":
                a = self.offset(kind, a, "1" if p.transpose[0] else k)
                c, m = self.offset(kind, c, n), count
            else:
                b = self.offset(kind, b, k if p.transpose[1] else "1")
                c, n = self.offset(kind, c, "1"), count
        if p.k != 0 and 1 in (p.m, p.n):
            right = p.n == 1
            matrix, transposed = (a, p.transpose[0]) if right else (b, not p.transpose[1])
            across = m if right else n
            rows, cols = (k, across) if transposed else (across, k)
            side = lda if right else ldb
            self.vector_product(kind, transposed, (rows, cols, side), matrix, b if right else a, c)
            return
        words = [self.new(f"trunc i64 {v} to i32") for v in (m, n, k, lda, ldb, ldc)]
        sizes = [f"i32 {w}" for w in words]
        flags = ["i32 101", *(f"i32 {112 if t else 111}" for t in p.transpose)]
        name = f"gnn_{'d' if p.c.dtype.itemsize == 8 else 's'}gemm"
        types = ["i32"] * 6 + [kind, "ptr", "i32", "ptr", "i32", kind, "ptr", "i32"]
        function = self.module.declare(name, "void", *types)
        args = [*flags, *sizes[:3], f"{kind} 1.0", f"ptr {a}", sizes[3], f"ptr {b}", sizes[4]]
        args += [f"{kind} 0.0", f"ptr {c}", sizes[5]]
        self.do(f"call void {function}({', '.join(args)})")

    def vector_product(
        self, kind: str, transposed: bool, sizes: tuple[str, ...], a: str, x: str, y: str
    ) -> None:
        """A call of the library's gemv. sizes: rows and columns of a as it lies, its row's step.

        The result is cleared first, for 0 times what lies there may be NaN.
        """
        m, n, lda = (self.new(f"trunc i64 {v} to i32") for v in sizes)
        letter, item = ("d", 8) if kind == "double" else ("s", 4)
        size = self.new(f"mul nsw i64 {sizes[1] if transposed else sizes[0]}, {item}")
        clear = self.module.declare("llvm.memset.p0.i64", "void", "ptr", "i8", "i64", "i1")
        self.do(f"call void {clear}(ptr {y}, i8 0, i64 {size}, i1 false)")
        types = ["i32"] * 4 + [kind, "ptr", "i32", "ptr", "i32", kind, "ptr", "i32"]
        function = self.module.declare(f"gnn_{letter}gemv", "void", *types)
        self.do(
            f"call void {function}(i32 101, i32 {112 if transposed else 111}, i32 {m}, i32 {n}, "
            f"{kind} 1.0, ptr {a}, i32 {lda}, ptr {x}, i32 1, {kind} 0.0, ptr {y}, i32 1)"
        )

    def offset(self, kind: str, pointer: str, stride: str) -> str:
        """A pointer moved to row `begin` of the split axis."""
        by = self.new(f"mul nsw i64 %begin, {stride}")
        return self.new(f"getelementptr {kind}, ptr {pointer}, i64 {by}")

    # ---- memory ----------------------------------------------------------------------

    def address(self, buffer: Buffer, linear: Any) -> str:
        kind = {bool_: "i8", float16: "half", bfloat16: "i16"}.get(
            buffer.dtype, llvm_type(buffer.dtype)
        )
        at = self.index(linear)
        return self.new(f"getelementptr inbounds {kind}, ptr {self.buffers[buffer]}, i64 {at}")

    def load(self, buffer: Buffer, linear: Any) -> str:
        at, dtype = self.address(buffer, linear), buffer.dtype
        if dtype == bool_:
            byte = self.new(f"load i8, ptr {at}{self.tag}")
            return self.new(f"trunc i8 {byte} to i1")
        if dtype == float16:
            half = self.new(f"load half, ptr {at}{self.tag}")
            return self.new(f"fpext half {half} to float")
        if dtype == bfloat16:
            bits = self.new(f"load i16, ptr {at}{self.tag}")
            wide = self.new(f"zext i16 {bits} to i32")
            shifted = self.new(f"shl i32 {wide}, 16")
            return self.new(f"bitcast i32 {shifted} to float")
        return self.new(f"load {llvm_type(dtype)}, ptr {at}{self.tag}")

    def store(self, buffer: Buffer, linear: Any, value: str) -> None:
        at, dtype = self.address(buffer, linear), buffer.dtype
        kind = llvm_type(dtype)
        if dtype == bool_:
            value, kind = self.new(f"zext i1 {value} to i8"), "i8"
        elif dtype == float16:
            value, kind = self.new(f"fptrunc float {value} to half"), "half"
        elif dtype == bfloat16:
            bits = self.bfloat16_bits(value)
            value, kind = self.new(f"trunc i32 {bits} to i16"), "i16"
        self.do(f"store {kind} {value}, ptr {at}{self.tag}")

    # ---- indices ---------------------------------------------------------------------

    def index(self, value: Any) -> str:
        """An index expression as an i64 operand."""
        if isinstance(value, int):
            return str(value)
        total = ""
        for monomial, factor in value.terms:
            term = "" if factor == 1 and monomial else str(factor)
            for a in monomial:
                operand = self.atom(a)
                term = self.new(f"mul nsw i64 {term}, {operand}") if term else operand
            total = self.new(f"add nsw i64 {total}, {term}") if total else term
        return total

    def atom(self, a: Any) -> str:
        if isinstance(a, Symbol):
            return self.sizes[a.name]
        if isinstance(a, Var):
            return self.vars[a]
        if isinstance(a, Dynamic):
            return self.value(a.value)
        if isinstance(a, FloorDiv):
            return self.floordiv(a)
        raise TypeError(a)

    def floordiv(self, a: FloorDiv) -> str:
        """floor(numerator / denominator); the numerator may be negative, as in a reversed axis."""
        top, by = self.index(a.numerator), self.index(a.denominator)
        low, _ = bounds(a.numerator)
        if low is not None and low >= 0:
            return self.new(f"udiv i64 {top}, {by}")
        quotient = self.new(f"sdiv i64 {top}, {by}")
        rest = self.new(f"srem i64 {top}, {by}")
        negative = self.new(f"icmp slt i64 {rest}, 0")
        down = self.new(f"sext i1 {negative} to i64")
        return self.new(f"add nsw i64 {quotient}, {down}")

    # ---- values and branches -----------------------------------------------------------

    def value(self, scalar: Scalar) -> str:
        """The operand that holds a scalar, computed in the current scope if not known."""
        if scalar.op == "constant":
            return literal(scalar.attrs[0].value, scalar.dtype)
        for scope in self.scopes:
            if id(scalar) in scope.values:
                return scope.values[id(scalar)]
        result = self.compute(scalar)
        self.scopes[-1].values[id(scalar)] = result
        return result

    def _guarded(self, s: Scalar) -> str:
        condition, inner, other = s.args
        test, outside = self.value(condition), self.value(other)
        return self.branch(test, inner, outside, s.dtype)

    def branch(self, test: str, inner: Scalar, outside: str, dtype: DType) -> str:
        """inner, computed only where the test holds, else outside."""
        then, join = self.label("then"), self.label("join")
        before = self.block
        self.do(f"br i1 {test}, label %{then}, label %{join}")
        self.begin(then)
        self.scopes.append(_Scope(frozenset()))
        value = self.value(inner)
        self.scopes.pop()
        end = self.block
        self.do(f"br label %{join}")
        self.begin(join)
        kind = llvm_type(dtype)
        return self.new(f"phi {kind} [ {value}, %{end} ], [ {outside}, %{before} ]")

    def _check(self, s: Scalar) -> str:
        ok, value, other = s.args
        test, good, bad = self.value(ok), self.value(value), self.value(other)
        number = self.module.check_number(s.attrs[0])
        fail, join = self.label("fail"), self.label("join")
        self.do(f"br i1 {test}, label %{join}, label %{fail}")
        self.begin(fail)
        seen = self.as_int64(value, good)
        self.do(f"store i64 {seen}, ptr %check.value")
        self.do(f"store i64 {number}, ptr %check.code")
        self.do(f"br label %{join}")
        self.begin(join)
        if not any("%check.code =" in line for line in self.head):
            self.head.append("  %check.code = getelementptr i64, ptr %sizes, i64 0")
            self.head.append("  %check.value = getelementptr i64, ptr %sizes, i64 1")
        kind = llvm_type(s.dtype)
        return self.new(f"select i1 {test}, {kind} {good}, {kind} {bad}")


def _touches(value: Scalar, written: set[Buffer]) -> bool:
    return any(e.op == "load" and e.attrs[0] in written for e in expressions((value,)))


def _deep(statements: Iterable[Statement]) -> Iterable[Statement]:
    for s in statements:
        yield s
        if isinstance(s, Loop):
            yield from _deep(s.body)
