"""Low-precision copies of Variables, kept from call to call.

In mixed precision a step casts each float32 Variable to 16 bits for its products. Where the step
also assigns the Variable, the copy can be written together with the new value, by the kernel that
has it in a register: the next step then has no cast, which reads 4 bytes an element and writes 2.
The copy is one more input with a new value, whose memory belongs to the program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ir.types import DType, TensorType, is_float
from graphnn.compiler.ops.core import Input
from graphnn.compiler.ops.logic import Cast


@dataclass(frozen=True)
class NarrowCopy:
    """An input that holds another one in a narrower dtype.

    position, source: of the copy and of the Variable, among the inputs of the graph.
    """

    position: int
    source: int
    type: TensorType

    @property
    def dtype(self) -> DType:
        """Dtype of the copy."""
        return self.type.dtype


def keep_narrow_copies(graph: Graph) -> tuple[Graph, tuple[NarrowCopy, ...]]:
    """The graph with an input for each narrowed Variable that it assigns, and what these hold.

    A copy holds the Variable's value when the graph starts, and does so again when it ends.
    """
    values = dict(graph.updates)
    casts = [n for n in graph.nodes if _is_narrowing(n) and n.inputs[0] in values]
    if not casts:
        return graph, ()
    known: dict[tuple[Node, DType], Node] = {}
    rewriter = Rewriter()
    copies: list[NarrowCopy] = []
    updates: list[tuple[Node, Node]] = []
    positions = {node: i for i, node in enumerate(graph.inputs)}
    for cast in casts:
        (source,) = cast.inputs
        key = source, cast.dtype
        if key not in known:
            label = f"{source.op.label}.{cast.dtype.name}"  # type: ignore[attr-defined]
            op = Input(label=label, kind="variable")
            known[key] = Node(op, (), cast.type, source.loc, source.device)
            position = len(graph.inputs) + len(copies)
            copies.append(NarrowCopy(position, positions[source], cast.tensor))
            updates.append((known[key], replace(cast, inputs=(values[source],))))
        rewriter.replace[cast] = known[key]
    inputs = (*graph.inputs, *known.values())
    whole = Graph(graph.name, inputs, graph.outputs, (*graph.updates, *updates), graph.effects)
    # The new values are casts too, of what the step computes: only casts of the old value go.
    for node in whole.nodes:
        if node not in rewriter.replace:
            rewriter.replace[node] = rewriter.copy(node)
    return rewriter.graph(whole), tuple(copies)


def _is_narrowing(node: Node) -> bool:
    """Whether a node casts a float Variable to a float dtype of fewer bytes."""
    if not isinstance(node.op, Cast):
        return False
    (source,) = node.inputs
    if not isinstance(source.op, Input) or source.op.kind != "variable":
        return False
    floats = is_float(node.dtype) and is_float(source.dtype)
    return floats and node.dtype.itemsize < source.dtype.itemsize
