"""The dump tool: every stage of a compiled graph as text, and the difference of two stages.

A `Dump` holds one traced graph and what became of it. It only makes text: tracing, compiling and
files are the business of its callers (`graphnn/inspection.py`, `graphnn/cli.py`).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphnn.compiler.codegen.cuda_program import DeviceBuilt
from graphnn.compiler.codegen.program import Built, Work
from graphnn.compiler.dump_device import (
    DeviceView,
    device_program_text,
    headline,
    kernels_table,
    libraries_table,
    timeline,
)
from graphnn.compiler.dump_program import (
    View,
    byte_text,
    counted,
    distinct,
    fuse_text,
    kernel_loops,
    kernel_text,
    loops_text,
    memory_text,
    program_text,
    refusals,
    steps_table,
    table,
    totals,
)
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.text import Printer, print_graph
from graphnn.compiler.ir.types import FLOATS, SHORT
from graphnn.compiler.ops.base import REGISTRY, Op
from graphnn.compiler.ops.core import Constant, Input, Item
from graphnn.compiler.passes.place import Placement
from graphnn.runtime.device import DeviceFacts
from graphnn.runtime.errors import ArgumentError

__all__ = ["Dump", "Machine", "difference", "ops_text"]

MOST_REASONS = 8  # in the summary
RULES = ("eager", "decompose", "library", "fold")


@dataclass(frozen=True)
class Machine:
    """What turns a kernel's LLVM text into text nearer to the machine."""

    optimize: Callable[[str], str]
    assemble: Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Dump:
    """One traced graph through all stages.

    graphs: ("trace", graph), then each pass with the graph after it. built: the program, if it was
    made. sizes: values of symbolic sizes in the latest call. machine: for machine code. facts: of
    the GPU that a program is for. times: measured seconds of its steps, by their numbers.
    """

    graphs: Sequence[tuple[str, Graph]]
    built: Built | DeviceBuilt | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    machine: Machine | None = None
    facts: DeviceFacts | None = None
    times: Mapping[int, float] = field(default_factory=dict)

    # ---- stages ----------------------------------------------------------------------

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in order; a pass that runs twice has numbers."""
        summary = () if self.built is None else ("summary",)
        made = ("fuse", "memory", "loops", "program") if summary else ()
        return (*summary, *self.by_stage, *made, *self.codes)

    @property
    def codes(self) -> tuple[str, ...]:
        """Forms of the kernels' code."""
        if self.built is None:
            return ()
        if isinstance(self.built, DeviceBuilt):
            return ("cuda",)
        return ("llvm",) if self.machine is None else ("llvm", "optimized", "asm")

    @property
    def by_stage(self) -> dict[str, Graph]:
        """The graphs by the names of their stages."""
        total = Counter(name for name, _ in self.graphs)
        seen: Counter[str] = Counter()
        found = {}
        for name, graph in self.graphs:
            seen[name] += 1
            found[name if total[name] == 1 else f"{name}.{seen[name]}"] = graph
        return found

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.graphs[0][1].name

    def resolve(self, stage: str) -> str:
        """The full name of a stage; the bare name of a pass means its last run.

        Raises ArgumentError for a stage that does not exist.
        """
        known = self.stages
        if stage in known:
            return stage
        runs = [s for s in known if s.split(".")[0] == stage]
        if runs:
            return runs[-1]
        near = difflib.get_close_matches(stage, known, 1)
        raise ArgumentError(
            f"dump of {self.name}",
            received=f"stage {stage!r}",
            expected="one of " + ", ".join(known),
            fix=f"did you mean {near[0]!r}?" if near else "name one of these stages",
        )

    def text(self, stage: str = "summary") -> str:
        """The text of a stage, "all" for those of all stages but machine code."""
        if stage == "all":
            shown = [s for s in self.stages if s not in self.codes]
            return "\n".join(f"==== {s} ====\n{self.text(s)}" for s in shown)
        stage = self.resolve(stage)
        graph = self.by_stage.get(stage)
        if graph is not None:
            return print_graph(graph)
        return _TEXTS[stage](self)

    def diff(self, first: str, second: str) -> str:
        """What a stage has that an earlier one has not, and the other way round."""
        first, second = self.resolve(first), self.resolve(second)
        return difference(first, self.text(first), second, self.text(second))

    # ---- kernels ---------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The program. Raises ArgumentError where none was built."""
        if self.built is None:
            raise ArgumentError(
                f"dump of {self.name}",
                received="a graph that was not compiled",
                expected="a program",
                fix="compile it first",
            )
        if isinstance(self.built, DeviceBuilt):
            facts = self.facts or DeviceFacts()
            return DeviceView(self.built, self.sizes, facts, self.times)  # type: ignore[arg-type]
        return View(self.built, self.sizes)

    def kernel(self, name: str, form: str = "loops") -> str:
        """One kernel. name: k0, k1, ... or (a part of) its function's name.

        form: "loops", "llvm", "optimized" or "asm", for a GPU "loops" or "cuda". Raises
        ArgumentError for an unknown one.
        """
        forms = ("loops", *self.codes)
        if form not in forms:
            raise ArgumentError(
                f"dump of kernel {name}",
                received=f"form {form!r}",
                expected="one of " + ", ".join(forms),
                fix="name one of these forms",
            )
        return self._kernel(self._find(name), form)

    def _kernel(self, works: Sequence[Work], form: str) -> str:
        if form == "loops":
            return kernel_loops(self.view, works)
        change = None
        if self.machine is not None:
            change = {"optimized": self.machine.optimize, "asm": self.machine.assemble}.get(form)
        return kernel_text(self.view, works, _COMMENT.get(form, ";"), change)

    def _find(self, name: str) -> list[Work]:
        known = distinct(self.view)
        if re.fullmatch(r"k\d+", name) and int(name[1:]) < len(self.view.works):
            text = self.view.works[int(name[1:])].text
            if text is not None:
                return known[text.name]
        found = [works for kernel, works in known.items() if name in kernel]
        if len(found) == 1:
            return found[0]
        raise ArgumentError(
            f"dump of {self.name}",
            received=f"kernel {name!r}" + (f", which {len(found)} have" if found else ""),
            expected="one of " + ", ".join(f"{_runs(self.view, w)} {k}" for k, w in known.items()),
            fix="give k0, k1, ... or a part of one name",
        )

    def kernels(self, form: str) -> str:
        """All distinct kernels."""
        return "\n".join(self._kernel(works, form) for works in distinct(self.view).values())

    # ---- summary ---------------------------------------------------------------------

    def summary(self) -> str:
        """What a person wants first: sizes of the stages, steps, memory, refusals."""
        view, trace = self.view, self.graphs[0][1]
        refused, program = refusals(view), view.program
        counts = [f"{name} {node_count(graph)}" for name, graph in self.by_stage.items()]
        lines = [_signature(trace), ""]
        lines.append(f"nodes    {' -> '.join(counts)} -> {counted(len(view.works), 'group')}")
        lines += headline(view) if isinstance(view, DeviceView) else [_program_line(view)]
        reads, writes = (
            sum(view.nbytes(slots) for slots in side)
            for side in ([s.inputs for s in program.steps], [s.outputs for s in program.steps])
        )
        lines += [
            f"traffic  reads {byte_text(reads)}, writes {byte_text(writes)} a call",
            f"memory   arguments and Variables {byte_text(view.nbytes(set(program.inputs)))}, "
            f"results {byte_text(view.nbytes(_fresh(view)))}, "
            f"arena {byte_text(view.layout.arena)}",
        ]
        lines.append(f"devices  {_placement_text(view.built.placement)}")
        if trace.updates:
            copied = len(program.copies)
            lines.append(
                f"state    {counted(len(trace.updates), 'Variable')} assigned, "
                f"{len(trace.updates) - copied} in place, {copied} by a copy at the end"
            )
        if isinstance(view, DeviceView):
            lines += [*kernels_table(view), *libraries_table(view)]
        else:
            lines += ["", *steps_table(view)]
        lines += ["", f"merges refused: {len(refused)}"]
        reasons = Counter(r.text for r in refused).most_common()
        lines += [f"    {n} x {text}" for text, n in reasons[:MOST_REASONS]]
        if len(reasons) > MOST_REASONS:
            lines.append("    ... all of them, with both lines, in the stage fuse")
        return "\n".join([*lines, "", "stages: " + ", ".join(self.stages)]) + "\n"


def _program_line(view: View) -> str:
    return f"program  {totals(view).text()}{view.assumption()}"


def _placement_text(placement: Placement | None) -> str:
    """How many nodes are where, and each copy between devices with its reason."""
    if placement is None:
        return "not placed"
    where = Counter(placement.devices.values())
    text = ", ".join(f"{counted(n, 'node')} on {name}" for name, n in sorted(where.items()))
    copies = [
        f"\n         copied: {t.node.op.name} {t.node.type} from {t.source} to {t.target}, "
        f"{_size_text(t.nbytes)}: {t.reason}" + (f"  # {t.loc}" if t.loc else "")
        for t in placement.transfers
    ]
    return text + "".join(copies)


def _size_text(nbytes: Any) -> str:
    return byte_text(nbytes) if isinstance(nbytes, int) else f"{nbytes} B"


def _program_text(dump: Dump) -> str:
    view = dump.view
    return device_program_text(view) if isinstance(view, DeviceView) else program_text(view)


def _memory_text(dump: Dump) -> str:
    view = dump.view
    more = timeline(view) if isinstance(view, DeviceView) else []
    return memory_text(view) + "".join(line + "\n" for line in more)


_COMMENT = {"asm": "#", "cuda": "//"}
_TEXTS: dict[str, Callable[[Dump], str]] = {
    "summary": Dump.summary,
    "fuse": lambda d: fuse_text(d.view),
    "memory": _memory_text,
    "loops": lambda d: loops_text(d.view),
    "program": _program_text,
    "cuda": lambda d: d.kernels("cuda"),
    "llvm": lambda d: d.kernels("llvm"),
    "optimized": lambda d: d.kernels("optimized"),
    "asm": lambda d: d.kernels("asm"),
}


def node_count(graph: Graph) -> int:
    """Nodes that compute something: no inputs, no constants, no items of several results."""
    return sum(not isinstance(n.op, Input | Constant | Item) for n in graph.nodes)


def _fresh(view: View) -> set[int]:
    return {s for s in view.program.outputs if view.program.slots[s].role == "output"}


def _runs(view: View, works: Iterable[Work]) -> str:
    return ",".join(map(view.number, works))


def _signature(graph: Graph) -> str:
    printer = Printer.of(graph)
    kinds = Counter(getattr(n.op, "kind", "argument") for n in graph.inputs)
    arguments = [
        printer.line(n).split(": ", 1)[1]
        for n in graph.inputs
        if getattr(n.op, "kind", "argument") == "argument"
    ]
    results = ", ".join(str(o.type) for o in graph.outputs) or "nothing"
    words = (("Variable", kinds["variable"]), ("captured tensor", kinds["capture"]))
    others = [counted(n, word) for word, n in words if n]
    reads = f"; reads {' and '.join(others)}" if others else ""
    return f"{graph.name}({', '.join(arguments)}) -> {results}{reads}"


# ---- difference of two texts ------------------------------------------------------------------


_DEFINED = re.compile(r"%(\d+): [^=\"']*?(?:= (\w+)\(|([\"'])(.*?)\3)")


def plain(text: str) -> list[str]:
    """Lines without what changes with every renumbering: nodes are named by op or label.

    >>> plain('  %3: f32[2] = exp(%0)    # a.py:1')
    ['%exp: f32[2] = exp(%)  # a.py:1']
    """
    names = {m[1]: m[2] or m[4] for m in _DEFINED.finditer(text)}
    text = re.sub(r"%(\d+)", lambda m: "%" + names.get(m[1], ""), text)
    text = re.sub(r"\b(slot|step) \d+|\bk\d+\b", lambda m: (m[1] or "k") + " _", text)
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("graph "):
            lines += line.replace(", %", ",\n%").splitlines()
        else:
            lines.append(re.sub(r"\s+", " ", line).strip().replace(" #", "  #"))
    return lines


def difference(first: str, a: str, second: str, b: str) -> str:
    """Removed and added lines between two texts, or that nothing has changed.

    first, second: what the texts are called.

    >>> difference("trace", "x\\ny", "simplify", "x\\nz")
    'trace -> simplify: 1 line removed, 1 line added\\n  x\\n- y\\n+ z\\n'
    """
    lines = list(difflib.unified_diff(plain(a), plain(b), lineterm="", n=1))[2:]
    if not lines:
        return f"{first} -> {second}: unchanged\n"
    removed = sum(line.startswith("-") for line in lines)
    added = sum(line.startswith("+") for line in lines)
    head = (
        f"{first} -> {second}: {counted(removed, 'line')} removed, {counted(added, 'line')} added"
    )
    shown = ["  ..." if s.startswith("@@") else f"{s[0]} {s[1:]}".rstrip() for s in lines]
    return "\n".join([head, *shown[1:]]) + "\n"


# ---- the op set -------------------------------------------------------------------------------


def ops_text() -> str:
    """The table of ops: loop form, dtypes, and which rules each states."""
    rows = [["op", "fusion", "element", "dtypes", *RULES, "gradient"]]
    for name, cls in sorted(REGISTRY.items()):
        rules = [rule if _states(cls, rule) else "-" for rule in RULES]
        rows.append([name, cls.fusion, _element(cls), _dtypes(cls), *rules, _gradient(cls)])
    return "\n".join([*table(rows), "", counted(len(rows) - 1, "op")]) + "\n"


def _states(cls: type[Op], rule: str) -> bool:
    return getattr(cls, rule, None) is not getattr(Op, rule, None)


def _element(cls: type[Op]) -> str:
    """Whether an element is said from elements, or from an index."""
    if _states(cls, "scalar"):
        return "scalar"
    return "index" if _states(cls, "element") else "-"


def _dtypes(cls: type[Op]) -> str:
    if tuple(cls.accepts) == tuple(FLOATS):
        return "floats"
    names = [SHORT[d] for d in cls.accepts]
    return " ".join(names) if len(names) <= 3 else f"{len(names)} from {names[0]}"


def _gradient(cls: type[Op]) -> str:
    if cls.gradient is not None:
        return "none: " + cls.gradient.reason
    return "own rule" if cls.has("grad") else "by parts" if cls.has("decompose") else "-"
