"""Products and attention in the form that a device's library does them, on tensors where they lie.

First every product becomes a strided one (`strided_form`): transpositions, slices and permuted axes
of operands become strides instead of copies; a product that the library lacks (integers) becomes a
sum of products, which has a loop form. Then what follows a product is folded into it, as
`passes.epilogues` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.gemm import Gemm
from graphnn.compiler.passes.epilogues import Chain, Epilogues
from graphnn.compiler.passes.fuse import Reason, fuse
from graphnn.compiler.passes.strides import CALLS, strided_form
from graphnn.compiler.trace import GraphHandler


@dataclass(frozen=True)
class LibraryRules:
    """What the libraries of a device are asked for.

    tf32: float32 products may cut their inputs to 10 bits. epilogues: bias, activations and sums
    are folded into products. calls: into how many calls a batch without one stride may fall before
    its operands are copied instead. supports(op, dtype of the operands): whether the library at
    hand has a product with what follows it; None trusts the documentation.
    """

    tf32: bool = False
    epilogues: bool = True
    calls: int = CALLS
    supports: Callable[[Gemm, str], bool] | None = None


def library_form(graph: Graph, rules: LibraryRules) -> tuple[Graph, list[Reason]]:
    """The graph with its products in the library's form, and why nodes stayed out of them."""
    graph = strided_form(graph, rules.tf32, rules.calls)
    products = [n for n in graph.nodes if isinstance(n.op, Gemm) and n.op.is_plain]
    if not products or not rules.epilogues:
        return graph, []
    partition = fuse(graph)
    while True:
        found = Epilogues(partition, products)
        folded = _Folder(graph, found)
        result = folded.run()
        refused = {p for p, (op, dtype) in folded.made.items() if not _has(rules, op, dtype)}
        if not refused:
            return result, found.reasons
        products = [p for p in products if p not in refused]


def _has(rules: LibraryRules, op: Gemm, dtype: str) -> bool:
    return rules.supports is None or rules.supports(op, dtype)


class _Folder:
    """Rebuilds the graph; a product appears where the last node stood that it stands for."""

    def __init__(self, graph: Graph, found: Epilogues) -> None:
        self.graph, self.found = graph, found
        self.handler = GraphHandler()
        self.ops = Ops(self.handler)
        self.rewriter = Rewriter()
        self.kept: dict[Chain, Node] = {}
        self.made: dict[Node, tuple[Gemm, str]] = {}

    def run(self) -> Graph:
        for node in self._ordered():
            chain = self.found.chain_of(node)
            self.handler.at(node)
            if chain is None or chain.is_plain:
                self.rewriter.replace[node] = self.rewriter.copy(node)
            else:
                self._fold(chain)
        return self.rewriter.graph(self.graph)

    def _ordered(self) -> Iterator[Node]:
        """Nodes after all that their product needs; of each product only its last node."""
        leader = self.found.leader
        done: set[Node] = set()
        for first in map(leader, self.graph.nodes):
            stack = [(first, iter(self._needs(first)))]
            while stack:
                node, rest = stack[-1]
                following = next((n for n in map(leader, rest) if n not in done), None)
                if following is not None and node not in done:
                    stack.append((following, iter(self._needs(following))))
                    continue
                stack.pop()
                if node not in done:
                    done.add(node)
                    yield node

    def _needs(self, node: Node) -> list[Node]:
        chain = self.found.chain_of(node)
        return list(node.inputs) if chain is None else chain.needs

    def _fold(self, chain: Chain) -> None:
        last = chain.last
        made = replace(
            chain.op,
            shape=last.shape,
            dtype=last.dtype.name,
            bias=chain.bias is not None,
            residual=chain.residual is not None,
            activation=chain.activation,
            keeps=chain.keeps,
            slope=chain.slope,
            sums=chain.sums,
        )
        self.made[chain.product] = made, chain.product.inputs[0].dtype.name
        results = self.handler.apply(made, self._inputs(chain))
        parts = list(results) if isinstance(results, tuple) else [results]
        self.rewriter.replace[last] = parts[0]
        if chain.keeps:
            self.kept[chain] = parts[1]
            if chain.before is not None and chain.activation != "relu":
                self.rewriter.replace[chain.before] = self._shaped(parts[1], chain.before)
        if chain.total is not None:
            self.rewriter.replace[chain.total] = self._shaped(parts[-1], chain.total)
        for twin, first in self.found.values.twin.items():
            if first in chain.nodes and first in self.rewriter.replace:
                self.rewriter.replace[twin] = self.rewriter.replace[first]

    def _inputs(self, chain: Chain) -> list[Node]:
        """Operands, then what the epilogue reads."""
        inputs = list(self.rewriter.inputs(chain.product))
        if chain.bias is not None:
            bias = self.rewriter(chain.bias)
            vector = len(bias.shape) == 1
            inputs.append(bias if vector else self.ops.reshape(bias, shape=(bias.tensor.size,)))
        if chain.residual is not None:
            inputs.append(self._shaped(self.rewriter(chain.residual), chain.last))
        if chain.slope_of is not None:
            inputs.append(self.kept[chain.slope_of])
        elif chain.slope and chain.before is not None:
            inputs.append(self.rewriter(chain.before))
        return inputs

    def _shaped(self, node: Node, like: Node) -> Node:
        return node if node.shape == like.shape else self.ops.reshape(node, shape=like.shape)
