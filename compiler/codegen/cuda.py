"""Loop form to CUDA C: a schedule is chosen for each kernel, and its text printed.

The text of a kernel has no prelude (`cuda_prelude.PRELUDE` stands before all kernels of a program)
and one or more entries; `Rule`s say how they are launched, in order. Equal kernels give equal texts
and names; the user's lines in comments do not count.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from graphnn.compiler.codegen.cuda_flat import flat_kernel
from graphnn.compiler.codegen.cuda_grid import grid_kernel, grid_of
from graphnn.compiler.codegen.cuda_long import long_kernel
from graphnn.compiler.codegen.cuda_plan import Options
from graphnn.compiler.codegen.cuda_prelude import PRELUDE
from graphnn.compiler.codegen.cuda_printer import Rule, Scheduled
from graphnn.compiler.codegen.cuda_rows import row_kernel
from graphnn.compiler.codegen.cuda_scan import scan_kernel
from graphnn.compiler.codegen.cuda_scatter import scatter_kernel
from graphnn.compiler.codegen.cuda_split import middle_kernel
from graphnn.compiler.codegen.cuda_tile import crossed_loads, tile_kernel
from graphnn.compiler.codegen.loops import Loop
from graphnn.compiler.codegen.lower import Lowered

__all__ = ["PRELUDE", "CudaText", "Options", "Rule", "print_cuda"]

_COMMENT = re.compile(r"\s*//.*$", re.MULTILINE)


@dataclass(frozen=True)
class CudaText:
    """One kernel as CUDA C. rules: its launches; the entry of a rule is `name + rule.entry`.

    many: text of the entry `name + "_many"`, by which steps with this kernel become one launch.
    """

    name: str
    text: str
    rules: tuple[Rule, ...]
    many: str = ""
    has_start: bool = False
    has_finish: bool = False

    @property
    def digest(self) -> str:
        """What equal kernels share."""
        return self.name.rpartition("_")[2]


def print_cuda(lowered: Lowered, kind: str, options: Options) -> tuple[Lowered, CudaText]:
    """The text of a lowered group, and the group with the memory that this schedule uses.

    kind: the group's. Raises TypeError for a form that has no schedule.
    """
    kernel = lowered.kernel
    done = _schedule(lowered, kind, options)
    name = f"{kernel.stem}_{_digest(done)}"
    own, many = (t.replace("@K@", name) for t in (done.text, done.many))
    text = CudaText(name, own, done.rules, many)
    kernel = replace(kernel, buffers=done.buffers, inplace=done.inplace)
    scratch = [b for b in lowered.scratch if b in done.buffers] + list(done.scratch)
    return Lowered(kernel, lowered.node_of, scratch), text


def _schedule(lowered: Lowered, kind: str, options: Options) -> Scheduled:
    kernel = lowered.kernel
    if kind == "middle":
        return middle_kernel(kernel)
    if kind == "scan":
        return scan_kernel(kernel)
    if kind == "scatter":
        return scatter_kernel(kernel, options)
    if not any(isinstance(s, Loop) for s in kernel.body):
        return flat_kernel(kernel, options)
    crossed = crossed_loads(kernel)
    if crossed:
        return tile_kernel(kernel, crossed)
    grid = grid_of(kernel, set(lowered.scratch))
    if grid:
        return grid_kernel(grid, options)
    long = long_kernel(kernel, lowered.scratch, options)
    return long or row_kernel(kernel, lowered.scratch, options)


def _digest(done: Scheduled) -> str:
    code = _COMMENT.sub("", done.text)
    launches = ";".join(f"{r.entry},{r.threads},{r.shared}" for r in done.rules)
    return hashlib.sha256(f"{code}\n{launches}".encode()).hexdigest()[:12]
