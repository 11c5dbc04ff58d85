"""Texts of what becomes of a graph after the passes: groups, memory, loops, steps, kernels.

Pure functions from a `View` (a built program with the numbers of one call) to text. Each line that
stands for something the user wrote carries the user's file and line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphnn.compiler.codegen.loops import Combine, Note, Product, Store, render
from graphnn.compiler.codegen.program import Built, Work
from graphnn.compiler.codegen.scalar import Buffer, Scalar
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.text import Printer
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.core import Input
from graphnn.compiler.passes.fuse import Reason
from graphnn.runtime.errors import Loc
from graphnn.runtime.program import Layout, Program, Step

ASSUMED = 64  # a symbolic size that no call has given yet


@dataclass(frozen=True, eq=False)
class View:
    """A built program with the numbers of one call.

    sizes: values of the symbolic sizes; those left out are taken as `ASSUMED`.
    """

    built: Built
    sizes: Mapping[str, int]

    @property
    def program(self) -> Program:
        """The program."""
        return self.built.program

    @property
    def graph(self) -> Graph:
        """The graph after all passes."""
        return self.built.partition.graph

    @cached_property
    def printer(self) -> Printer:
        """Names of the nodes: the numbers they have in the last graph."""
        return Printer.of(self.graph)

    @cached_property
    def layout(self) -> Layout:
        """The numbers of the call."""
        return self.program.layout(tuple(self.sizes.get(s, ASSUMED) for s in self.program.symbols))

    @cached_property
    def works(self) -> list[Work]:
        """Kernel runs and host calls in the order of the program; their positions name them."""
        return [w for step in self.built.steps for w in step]

    def number(self, work: Work) -> str:
        """k0, k1, ...: the name of one run."""
        return f"k{next(k for k, w in enumerate(self.works) if w is work)}"

    def name(self, node: Node) -> str:
        """A node in few words: its number and its op or label."""
        what = repr(node.op.label) if isinstance(node.op, Input) else node.op.name
        return f"{self.printer.name(node)} {what}"

    def nbytes(self, slots: Iterable[int]) -> int:
        """Bytes of some slots in this call."""
        total = 0
        for slot in slots:
            count = self.program.slots[slot].dtype.itemsize
            for size in self.layout.shapes[slot]:
                count *= size
            total += count
        return total

    def assumption(self) -> str:
        """For which sizes the numbers are, as the end of a headline."""
        if not self.program.symbols:
            return ""
        pairs = zip(self.program.symbols, self.layout.sizes, strict=True)
        text = ", ".join(f"{name}={size}" for name, size in pairs)
        guessed = any(s not in self.sizes for s in self.program.symbols)
        return f", with {text}" + (" (assumed: no call yet)" if guessed else "")


# ---- words ----------------------------------------------------------------------------------


def counted(count: int, word: str) -> str:
    """A number and its noun.

    >>> counted(1, "kernel"), counted(0, "kernel")
    ('1 kernel', '0 kernels')
    """
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def byte_text(count: float) -> str:
    """A number of bytes in three digits.

    >>> byte_text(96), byte_text(123456), byte_text(2.5e9)
    ('96 B', '123 kB', '2.5 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"


def place_text(locs: Iterable[Loc | None]) -> str:
    """Places in the user's code, lines of one file together.

    >>> place_text([Loc("/a/b.py", 3), Loc("/a/b.py", 7), Loc("/a/c.py", 1)])
    'b.py:3,7 c.py:1'
    """
    lines: dict[str, list[int]] = {}
    for loc in locs:
        if loc is not None:
            lines.setdefault(os.path.basename(loc.file), []).append(loc.line)
    return " ".join(f"{f}:{','.join(map(str, sorted(set(n))))}" for f, n in lines.items())


def layers_text(locs: Iterable[Loc | None], most: int | None = None) -> str:
    """The layers in which these places were reached, as " in a, b"; at most so many.

    >>> layers_text([Loc("a.py", 1, layer="net/dense"), Loc("a.py", 2), Loc("a.py", 1, layer="b")])
    ' in net/dense, b'
    """
    layers = list(dict.fromkeys(loc.layer for loc in locs if loc is not None and loc.layer))
    more = [] if most is None or len(layers) <= most else ["..."]
    return f" in {', '.join(layers[:most] + more)}" if layers else ""


def source_lines(locs: Iterable[Loc | None]) -> list[str]:
    """The user's lines with their text, in the order of the files."""
    first = {(loc.file, loc.line): loc for loc in locs if loc is not None}
    found = []
    for (file, line), loc in sorted(first.items()):
        code = loc.source().strip().split("\n")[0]
        found.append(f"{os.path.basename(file)}:{line}  {code}".rstrip())
    return found


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows of words in columns; `right` names the columns that end in line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ends = set(right)
    return [
        "  ".join(
            word.rjust(width) if k in ends else word.ljust(width)
            for k, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


# ---- fuse -----------------------------------------------------------------------------------


def fuse_text(view: View) -> str:
    """The groups with their members, what is inlined, and every merge that was refused."""
    partition = view.built.partition
    inside = [n for n in view.graph.nodes if n in partition.inlined]
    total = sum(len(w.group.levels) for w in view.works)
    lines = [
        f"fusion of {view.graph.name}: {counted(total + len(inside), 'node')} in "
        f"{counted(len(view.works), 'group')}, {len(inside)} of them computed inside their readers"
    ]
    for work in view.works:
        lines += ["", *_group_lines(view, work)]
    if inside:
        lines += ["", "inside their readers"]
        lines += [f"    {_inlined_line(view, node)}" for node in inside]
    refused = refusals(view)
    lines += ["", f"merges refused: {len(refused)}"]
    for reason in refused:
        lines += _reason_lines(view, reason)
    return "\n".join(lines) + "\n"


def refusals(view: View) -> list[Reason]:
    """Why neighbours do not share a kernel; without those that came together in another way."""
    group_of = view.built.partition.group_of
    apart = [
        r
        for r in view.built.partition.reasons
        if group_of.get(r.producer) is not group_of.get(r.consumer)
    ]
    return list({(r.producer, r.consumer): r for r in apart}.values())


def _group_lines(view: View, work: Work) -> Iterator[str]:
    group, stored = work.group, view.built.partition.stored
    kind = kind_of(work)
    loops = group.kind in ("loop", "middle")
    frame = f" over {group.frame.rows} x {group.frame.cols}" if loops else ""
    name = f"  {work.text.name}" if work.text else f"  {host_reason(work)}"
    yield f"{view.number(work)} {kind}{frame}: {counted(len(group.levels), 'node')}{name}"
    for node, level in group.levels.items():
        mark = "stored" if node in stored else ""
        yield f"    {level:<4} {mark:<6}  {view.printer.line(node)}"


def _inlined_line(view: View, node: Node) -> str:
    base = view.built.partition.aliases.get(node)
    shared = f"  (the memory of {view.name(base)})" if base is not None else ""
    return view.printer.line(node) + shared


def _reason_lines(view: View, reason: Reason) -> Iterator[str]:
    group_of = view.built.partition.group_of
    runs = {id(w.group): view.number(w) for w in view.works}
    pair = [runs.get(id(group_of.get(n)), "?") for n in (reason.producer, reason.consumer)]
    yield f"    {pair[0]} -> {pair[1]}: {reason.text}"
    for word, node in (("from", reason.producer), ("to", reason.consumer)):
        yield f"        {word:<4} {view.name(node):<24}  # {node.loc or 'no line'}"


def kind_of(work: Work) -> str:
    """The kind of a step: "host", "library", "loop", "middle", "scan" or "scatter".

    A node for a library is a loop of our own where no library takes its types.
    """
    if work.lowered is None:
        return "host"
    if work.group.kind != "library":
        return work.group.kind
    return "library" if any(isinstance(s, Product) for s in work.lowered.kernel.body) else "loop"


def host_reason(work: Work) -> str:
    """Why a step calls back to Python."""
    op = work.group.nodes[0].op
    if op.effect:
        return f"host call: {op.name} runs a Python function"
    return f"host call: {op.name} has no loop form and no library call"


# ---- memory ---------------------------------------------------------------------------------


def memory_text(view: View) -> str:
    """Each slot with its size, its place in the arena and the steps that touch it."""
    program, layout = view.program, view.layout
    lines = [
        f"memory of {program.name}: {counted(len(program.slots), 'slot')}, "
        f"arena {byte_text(layout.arena)}{view.assumption()}",
        "",
    ]
    rows = [["slot", "role", "bytes", "offset", "steps", "value", "line"]]
    names = _slot_names(view)
    for slot in program.slots:
        offset = layout.offsets[slot.index]
        rows.append(
            [
                str(slot.index),
                slot.role,
                str(view.nbytes([slot.index])),
                str(offset) if offset >= 0 else "-",
                _span([k for k, s in enumerate(program.steps) if slot.index in _touched(s)]),
                f"{names.get(slot.index, slot.label)} {TensorType(slot.shape, slot.dtype)}",
                str(slot.loc or ""),
            ]
        )
    return "\n".join([*lines, *table(rows, right=(0, 2, 3)), *_sharing_lines(view)]) + "\n"


def _touched(step: Step) -> set[int]:
    return {*step.inputs, *step.outputs, *(s for g in step.segments for s in g.slots)}


def _span(steps: Sequence[int]) -> str:
    if not steps:
        return "-"
    return str(steps[0]) if steps[0] == steps[-1] else f"{steps[0]}..{steps[-1]}"


def _slot_names(view: View) -> dict[int, str]:
    """What each slot holds: the input's label, or the node computed into it."""
    names = {s: repr(view.program.slots[s].label) for s in view.program.inputs}
    for step, works in zip(view.program.steps, view.built.steps, strict=True):
        nodes = [n for w in works for n in w.writes]
        for slot, node in zip(step.outputs, nodes, strict=True):
            names.setdefault(slot, view.name(node))
    return names


def _sharing_lines(view: View) -> Iterator[str]:
    """Who writes over whose memory."""
    program, names = view.program, _slot_names(view)
    layout: Any = program.layout
    lines = [
        f"slot {new} {names.get(new, '')} is written over slot {old} {names.get(old, '')}"
        for new, old in sorted(getattr(layout, "shares", {}).items())
    ]
    lines += [
        f"slot {slot} {names[slot]} gets its new value in place, in step {k}"
        for k, step in enumerate(program.steps)
        for slot in step.outputs
        if program.slots[slot].role == "input"
    ]
    lines += [
        f"slot {old} {names.get(old, '')} gets a copy of slot {new} {names.get(new, '')} at the end"
        for new, old in program.copies
    ]
    if lines:
        yield from ("", "shared memory", *(f"    {line}" for line in lines))


# ---- loops ----------------------------------------------------------------------------------


def loops_text(view: View) -> str:
    """Each distinct kernel in loop form, with the user's lines as comments."""
    return "\n".join(kernel_loops(view, works) for works in distinct(view).values())


def distinct(view: View) -> dict[str, list[Work]]:
    """The runs of each kernel, by its name."""
    found: dict[str, list[Work]] = {}
    for work in view.works:
        if work.text is not None:
            found.setdefault(work.text.name, []).append(work)
    return found


def kernel_loops(view: View, works: Sequence[Work]) -> str:
    """The loop form of one kernel; its comments are about its first run."""
    first = works[0]
    if first.lowered is None:
        return ""
    lowered, emitted = first.lowered, first.text.name if first.text else ""
    values = {b: view.name(n) for b, n in lowered.node_of.items()}
    runs = ", ".join(map(view.number, works))
    lines = [f"# {runs}: {emitted}"]
    lines += [f"# {line}" for line in source_lines(kernel_places(works))]
    body = render(lowered.kernel, _note(values, lowered.node_of))
    return "\n".join([*lines, body]) + "\n"


def kernel_places(works: Iterable[Work]) -> list[Loc | None]:
    """The user's lines that a kernel computes."""
    return [n.loc for w in works for n in w.group.nodes]


def _note(values: Mapping[Buffer, str], nodes: Mapping[Buffer, Node]) -> Note:
    def note(item: Any) -> str:
        if isinstance(item, Scalar):
            if item.op == "load":
                return values.get(item.attrs[0], "")
            return str(item.loc or "")
        if isinstance(item, Store | Combine):
            loc = nodes[item.buffer].loc if item.buffer in nodes else None
            return " ".join(filter(None, (values.get(item.buffer, ""), str(loc or ""))))
        accumulator = getattr(item, "accumulator", None)
        return str(accumulator.loc or "") if accumulator is not None else ""

    return note


# ---- program --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Totals:
    """What a program consists of."""

    steps: int
    kernels: int
    launches: int
    library: int
    host: int
    reads: int
    writes: int

    def text(self) -> str:
        """One line; kernels that many runs share are compiled once."""
        parts = [
            f"{counted(self.kernels, 'kernel')} in {counted(self.launches, 'run')}",
            counted(self.library, "library call"),
            counted(self.host, "host call"),
        ]
        return f"one native call of {counted(self.steps, 'step')}: {', '.join(parts)}"


def totals(view: View) -> Totals:
    """The counts of a program; library calls are not counted as kernels."""
    program = view.program
    kinds = [kind_of(w) for w in view.works]
    loops = [w for w, k in zip(view.works, kinds, strict=True) if k not in ("library", "host")]
    return Totals(
        steps=len(program.steps),
        kernels=len({w.text.name for w in loops if w.text}),
        launches=len(loops),
        library=kinds.count("library"),
        host=kinds.count("host"),
        reads=sum(view.nbytes(s.inputs) for s in program.steps),
        writes=sum(view.nbytes(s.outputs) for s in program.steps),
    )


def program_text(view: View) -> str:
    """The steps in order: what runs over how many rows, what it reads and writes."""
    found = totals(view)
    lines = [
        f"program {view.program.name}: {found.text()}",
        f"reads {byte_text(found.reads)}, writes {byte_text(found.writes)}, "
        f"arena {byte_text(view.layout.arena)}{view.assumption()}",
    ]
    for k in range(found.steps):
        lines += ["", *_step_lines(view, k)]
    if view.program.copies:
        lines += ["", "after all steps: copies of new values, see the stage memory"]
    return "\n".join(lines) + "\n"


def _step_lines(view: View, k: int) -> Iterator[str]:
    step, works, sizes = view.program.steps[k], view.built.steps[k], view.layout.steps[k]
    runs = ", ".join(map(view.number, works))
    if not step.kernel:
        yield f"step {k}  {runs}  {host_reason(works[0])}"
    else:
        kind = "library call" if kind_of(works[0]) == "library" else "kernel"
        rows = " + ".join(counted(n, "row") for n in sizes.rows)
        parts = counted(sizes.parts, "part")
        yield f"step {k}  {runs}  {kind} {step.kernel}: {rows} in {parts}"
    yield f"    computes {step.title}"
    if len(works) > 1:
        yield f"    segments {len(works)}, one after another in the same loop"
    for word, slots, nodes in (
        ("reads", step.inputs, [n for w in works for n in w.reads]),
        ("writes", step.outputs, [n for w in works for n in w.writes]),
    ):
        values = [_value(view, s, n) for s, n in zip(slots, nodes, strict=True)]
        yield f"    {word:<8} {byte_text(view.nbytes(slots))}: {', '.join(values) or 'nothing'}"
    for site in step.checks:
        yield f"    checks   {type(site.check).__name__}  # {site.loc or 'no line'}"
    yield f"    lines    {place_text(step.locs) or 'none'}{layers_text(step.locs)}"


def _value(view: View, slot: int, node: Node) -> str:
    held = view.program.slots[slot]
    in_place = held.role == "input" and not isinstance(node.op, Input)
    target = f" into {held.label!r}" if in_place else ""
    return f"{view.name(node)}{target} [slot {slot}]"


# ---- machine code ---------------------------------------------------------------------------


def kernel_text(
    view: View, works: Sequence[Work], comment: str, change: Callable[[str], str] | None = None
) -> str:
    """A kernel's LLVM text, or what `change` makes of it, under the user's lines."""
    text = works[0].text
    if text is None:
        return ""
    lines = [f"{comment} {', '.join(map(view.number, works))}: {text.name}"]
    lines += [f"{comment} {line}" for line in source_lines(kernel_places(works))]
    body = text.text if change is None else change(text.text)
    return "\n".join([*lines, body.rstrip("\n")]) + "\n"


# ---- summary --------------------------------------------------------------------------------


def steps_table(view: View) -> list[str]:
    """One line a step: what a person wants to see of the program first."""
    rows = [["step", "runs", "kind", "rows", "parts", "reads", "writes", "computes", "lines"]]
    for k, (step, works, sizes) in enumerate(
        zip(view.program.steps, view.built.steps, view.layout.steps, strict=True)
    ):
        rows.append(
            [
                str(k),
                view.number(works[0]) + (f" +{len(works) - 1}" if len(works) > 1 else ""),
                kind_of(works[0]),
                str(sum(sizes.rows)) if step.kernel else "-",
                str(sizes.parts),
                byte_text(view.nbytes(step.inputs)),
                byte_text(view.nbytes(step.outputs)),
                _short(step.title),
                place_text(step.locs) + layers_text(step.locs, most=2),
            ]
        )
    return table(rows, right=(0, 3, 4, 5, 6))


def _short(text: str, most: int = 48) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
