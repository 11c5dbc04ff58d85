"""What a library's product does besides multiplying: which nodes it takes in.

A chain is a product with the nodes it stands for: a cast to float32, a bias, a residual, an
activation; or the gradient of an activation (`slopes.py`); and the sum over rows that is a bias's
gradient. A chain grows only where that saves bytes or a launch, judged by the groups that fusion
makes without it, and only as far as cuBLASLt's documentation allows. Ops say by `epilogue` what
they are; each refusal is a `Reason`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import same, substitute, symbols_of
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ops.base import Reduce, normalize_axis
from graphnn.compiler.ops.gemm import SHORT, Gemm, dense, epilogue_dtypes
from graphnn.compiler.passes.access import is_alias
from graphnn.compiler.passes.fuse import Group, Partition, Reason
from graphnn.compiler.passes.slopes import Slopes

LAUNCH = 3 << 20  # bytes that a device moves in the time that one more step of a graph takes
USUAL_SIZE = 64  # what a symbolic size is taken for
GELU_MULTIPLE = 8  # of the rows of kept values
ACTIVATIONS = ("relu", "gelu")


@dataclass(eq=False)
class Chain:
    """A product and what it takes in.

    nodes: those it stands for, the product first; views between them are left out. before: the
    value that the activation is applied to (or, for a slope, was applied to). slope_of: the chain
    that keeps what the slope needs, None where that is the node `before`. total: the node with the
    sums. needs: what must be computed first.
    """

    product: Node
    nodes: list[Node]
    bias: Node | None = None
    residual: Node | None = None
    activation: str = ""
    keeps: bool = False
    before: Node | None = None
    slope: str = ""
    slope_of: Chain | None = None
    sums: str = ""
    total: Node | None = None

    @property
    def op(self) -> Gemm:
        """What the product is without the chain."""
        op = self.product.op
        if not isinstance(op, Gemm):
            raise TypeError(f"{op.name} is not in the library's form")
        return op

    @property
    def is_plain(self) -> bool:
        """Whether nothing is taken in."""
        return len(self.nodes) == 1 and not self.sums

    @property
    def last(self) -> Node:
        """The node whose value the product writes."""
        return self.nodes[-1]

    @property
    def needs(self) -> list[Node]:
        """What must be there before the product runs."""
        found = [*self.product.inputs, *(n for n in (self.bias, self.residual) if n is not None)]
        if self.slope_of is not None:
            found.append(self.slope_of.last)
        elif self.slope and self.before is not None:
            found.append(self.before)
        return found


class Values:
    """Who reads a value.

    Views that share its memory are the value itself; so are twins: equal nodes that follow the same
    product, such as the same sum with a bias computed again for the backward pass.
    """

    def __init__(self, partition: Partition, products: Iterable[Node]) -> None:
        self.partition = partition
        self.graph = partition.graph
        self.order = {n: k for k, n in enumerate(self.graph.nodes)}
        self.group_of = partition.group_of
        self.twin: dict[Node, Node] = {}
        self._find_twins(set(products))
        self.readers: dict[Node, list[Node]] = {}
        self.roots = {self.base(r) for r in self.graph.roots}
        for node in self.graph.nodes:
            if node.op.apart or is_alias(node):
                continue
            for source in dict.fromkeys(map(self.base, node.inputs)):
                known = self.readers.setdefault(source, [])
                if self.twin.get(node, node) not in known:
                    known.append(node)

    def _find_twins(self, behind: set[Node]) -> None:
        first: dict[Any, Node] = {}
        for node in self.graph.nodes:
            inputs = tuple(map(self.base, node.inputs))
            if node.op.epilogue not in ("add", "cast") or not behind.intersection(inputs):
                continue
            behind.add(node)
            key = (node.op, node.type, inputs)
            if first.setdefault(key, node) is not node:
                self.twin[node] = first[key]

    def base(self, node: Node) -> Node:
        """The node that stands for a value."""
        while True:
            if node in self.twin:
                node = self.twin[node]
            elif node.op.apart or is_alias(node):
                node = node.inputs[0]
            else:
                return node

    def of(self, node: Node) -> list[Node]:
        """The readers of a value."""
        return self.readers.get(self.base(node), [])

    def sole(self, node: Node) -> Node | None:
        """The one reader of a value that is no result of the graph and read once by it."""
        value = self.base(node)
        found = self.of(value)
        if len(found) != 1 or value in self.roots:
            return None
        return found[0] if [self.base(i) for i in found[0].inputs].count(value) == 1 else None

    def computing(self, node: Node) -> Iterable[Node]:
        """The readers whose kernels load the value: inlined ones pass it on to theirs."""
        for reader in self.of(node):
            if reader in self.partition.inlined:
                yield from self.computing(reader)
            else:
                yield reader

    def groups(self, node: Node) -> dict[int, Group]:
        """The groups that read a value, by id."""
        found = (self.group_of.get(r) for r in self.computing(node))
        return {id(g): g for g in found if g is not None}

    def depends(self, node: Node, on: Node) -> bool:
        """Whether a node needs another one."""
        first, seen, stack = self.order[on], set[Node](), [node]
        while stack:
            current = stack.pop()
            if current is on:
                return True
            if current in seen or self.order[current] < first:
                continue
            seen.add(current)
            stack += current.inputs
        return False


def nbytes(node: Node) -> int:
    """Bytes of a value, with usual numbers for symbolic sizes."""
    if not isinstance(node.type, TensorType):
        return 0
    size: Any = node.type.nbytes
    env = dict.fromkeys(symbols_of((size,)), USUAL_SIZE)
    return int(substitute(size, env))


class Epilogues:
    """The chains of a graph's products."""

    def __init__(self, partition: Partition, products: Sequence[Node]) -> None:
        self.values = Values(partition, products)
        self.partition = partition
        self.reasons: list[Reason] = []
        self.chains = {p: Chain(p, [p]) for p in products}
        self.taken: dict[Node, Chain] = {p: c for p, c in self.chains.items()}
        self.slopes: dict[Chain, tuple[Node, Node]] = {}
        self._match_slopes()
        for chain in self.chains.values():
            self._extend(chain)
        for chain, (target, activation) in self.slopes.items():
            self._take_slope(chain, target, activation)
        for chain in self.chains.values():
            self._find_sums(chain)

    def chain_of(self, node: Node) -> Chain | None:
        """The chain that a node belongs to."""
        return self.taken.get(node)

    def leader(self, node: Node) -> Node:
        """The node that stands for a node in the order of steps."""
        chain = self.taken.get(node)
        return node if chain is None else chain.last

    def _refuse(self, chain: Chain, consumer: Node, text: str) -> None:
        self.reasons.append(Reason(chain.product, consumer, text))

    # ---- bias, residual, activation ----------------------------------------------------------

    def _extend(self, chain: Chain) -> None:
        """The longest chain that saves most; shorter ones are tried on the way."""
        if 0 in (chain.op.m, chain.op.n, chain.op.k):
            return
        best, best_gain = chain, 0
        current = replace(chain, nodes=list(chain.nodes))
        reader = self._next(current)
        while reader is not None and reader not in self.taken:
            following = self._step(current, reader)
            if isinstance(following, str):
                if following:
                    self._refuse(chain, reader, following)
                break
            current = following
            gain = self._gain(current)
            if gain > best_gain:
                best, best_gain = current, gain
            reader = None if current.activation else self._next(current)
        if best is chain:
            if current.nodes != chain.nodes:
                self._refuse(chain, current.last, "the kernel has to run anyway, nothing is saved")
            return
        chain.__dict__.update(best.__dict__)
        for node in chain.nodes:
            self.taken[node] = chain
        self.taken |= {d: chain for d, first in self.values.twin.items() if first in chain.nodes}

    def _next(self, chain: Chain) -> Node | None:
        """The one reader of a chain's value, or its activation where others, as its gradient, read
        that value too."""
        sole = self.values.sole(chain.last)
        if sole is not None:
            return sole
        found = [r for r in self.values.of(chain.last) if r.op.epilogue in ACTIVATIONS]
        is_root = self.values.base(chain.last) in self.values.roots
        return found[0] if len(found) == 1 and not is_root else None

    def _step(self, chain: Chain, node: Node) -> Chain | str:
        """The chain with one more node, or why not."""
        word = node.op.epilogue
        if not word:
            return ""
        if chain.op.batch:
            return "a batch of products has no epilogue"
        if word == "cast":
            return self._with_cast(chain, node)
        if chain.last.dtype not in epilogue_dtypes():
            return f"the library has no epilogue for {chain.last.dtype.name}"
        if word == "add":
            return self._with_sum(chain, node)
        return self._with_activation(chain, node, word)

    @staticmethod
    def _with_cast(chain: Chain, node: Node) -> Chain | str:
        if len(chain.nodes) > 1 or chain.last.dtype not in SHORT or node.dtype != float32:
            return f"the library does not cast to {node.dtype.name} here"
        return replace(chain, nodes=[*chain.nodes, node])

    def _with_sum(self, chain: Chain, node: Node) -> Chain | str:
        value = self.values.base(chain.last)
        other = next(i for i in node.inputs if self.values.base(i) is not value)
        if node.shape != self._shape_in(node, value):
            return "the sum has another shape than the product"
        if self.values.depends(other, chain.product):
            return "both sides of the sum come from the product"
        n = chain.op.n
        if _is_vector(other, n) and same(node.shape[-1], n) and chain.bias is None:
            return replace(chain, nodes=[*chain.nodes, node], bias=other)
        if other.shape == node.shape and chain.residual is None:
            return replace(chain, nodes=[*chain.nodes, node], residual=other)
        return "the other side is neither a vector of the last axis nor a matrix like the product"

    def _shape_in(self, node: Node, value: Node) -> tuple[Any, ...]:
        return next(i.shape for i in node.inputs if self.values.base(i) is value)

    def _with_activation(self, chain: Chain, node: Node, word: str) -> Chain | str:
        value = chain.last
        if chain.residual is not None:
            return "a residual is added after the activation"
        if value.dtype != chain.product.inputs[0].dtype:
            return "the library applies activations to the operands' dtype only"
        keeps = self.values.sole(value) is None
        if keeps and word == "relu":
            return "the value before relu is read by others"
        if keeps and not _is_multiple(chain.op.n, GELU_MULTIPLE):
            return f"rows of kept values must be a multiple of {GELU_MULTIPLE} long"
        return replace(
            chain, nodes=[*chain.nodes, node], activation=word, keeps=keeps, before=value
        )

    # ---- the gradient of an activation -------------------------------------------------------

    def _match_slopes(self) -> None:
        """Products whose one reader multiplies them by the slope of an activation."""
        slopes = Slopes(self.partition.graph)
        for chain in self.chains.values():
            node = self.values.sole(chain.last)
            if node is None or node.op.epilogue or chain.op.batch:
                continue
            activation = slopes.find(chain.last, node)
            if activation is not None:
                self.slopes[chain] = node, activation

    def _take_slope(self, chain: Chain, target: Node, activation: Node) -> None:
        source = self.taken.get(activation)
        if source is not None and source.last is not activation:
            source = None
        text = self._why_no_slope(chain, target, activation, source)
        if text:
            self._refuse(chain, target, text)
            return
        chain.slope, chain.before = activation.op.epilogue, activation.inputs[0]
        if source is not None:
            source.keeps, chain.slope_of = True, source
        chain.nodes.append(target)
        self.taken[target] = chain

    def _why_no_slope(
        self, chain: Chain, target: Node, activation: Node, source: Chain | None
    ) -> str:
        operands = chain.product.inputs[0].dtype
        if chain.product.dtype not in epilogue_dtypes() or operands != target.dtype:
            return "the library has no slopes for these dtypes"
        if isinstance(chain.op.k, int) and chain.op.k <= 1:
            return "the library has no slopes of products over one element"
        if activation.op.epilogue == "relu" and source is None:
            return "relu was not applied by the library, which keeps its bits"
        if source is not None and self.values.depends(source.product, chain.product):
            return "the activation comes after its slope"
        if activation.op.epilogue == "gelu" and not _is_multiple(chain.op.n, GELU_MULTIPLE):
            return f"rows of kept values must be a multiple of {GELU_MULTIPLE} long"
        if not same(activation.shape[-1], chain.op.n):
            return "the activation has rows of another length"
        return ""

    # ---- sums over rows ----------------------------------------------------------------------

    def _needs(self, chain: Chain, total: Node) -> bool:
        """Whether a product needs sums, also through what other products compute together."""
        seen, stack = set[Node](), list(chain.product.inputs)
        while stack:
            node = stack.pop()
            if node is total:
                return True
            if node not in seen:
                seen.add(node)
                stack += node.inputs
                stack += self.taken[node].needs if node in self.taken else ()
        return False

    def _find_sums(self, chain: Chain) -> None:
        op = chain.op
        if op.batch or chain.activation or chain.bias or chain.residual:
            return
        if chain.slope:
            total = self._total(chain.last, op.n, chain)
            if total is not None:
                self._take_sums(chain, total, "c")
            return
        if len(chain.nodes) > 1 or 0 in (op.m, op.n, op.k):
            return
        a, b = chain.product.inputs
        # Only whole matrices whose rows, as they are stored, are added up.
        for word, node, n, stored in (
            ("b", b, op.n, op.b == dense(op.k, op.n)),
            ("a", a, op.m, op.a == dense(op.m, op.k, transposed=True)),
        ):
            fits = stored and node.dtype == chain.product.dtype
            whole = fits and same(node.tensor.size, op.k * n)
            total = self._total(node, n, chain) if whole else None
            if total is None:
                continue
            if chain.product.dtype not in epilogue_dtypes():
                self._refuse(chain, total, f"no sums of {chain.product.dtype.name} in the library")
            elif self._is_free(total, node):
                self._refuse(chain, total, "the values are summed while they are computed")
            elif self._needs(chain, total):
                self._refuse(chain, total, "the product needs the sums")
            else:
                self._take_sums(chain, total, word)
                return

    def _take_sums(self, chain: Chain, total: Node, word: str) -> None:
        chain.sums, chain.total = word, total
        self.taken[total] = chain

    def _total(self, node: Node, n: Any, chain: Chain) -> Node | None:
        """The sum over the rows of a matrix with n columns, which nobody has taken."""
        for reader in self.values.of(node):
            if not isinstance(reader.op, Reduce) or reader.op.monoid != "add":
                continue
            source = reader.inputs[0]
            axes = {normalize_axis(a, source.tensor.ndim, "sum") for a in reader.op.axes}
            kept = [s for k, s in enumerate(source.shape) if k not in axes and s != 1]
            right = len(source.shape) - 1 not in axes and same(source.shape[-1], n)
            if right and len(kept) <= 1 and self.values.base(source) is self.values.base(node):
                if reader not in self.taken and reader.dtype == chain.product.dtype:
                    return reader
        return None

    def _is_free(self, total: Node, node: Node) -> bool:
        """Whether the kernel that sums has the values at hand anyway."""
        group = self.values.group_of.get(total)
        if group is None:
            return False
        value = self.values.base(node)
        others = [n for n in group.levels if n is not total]
        return value in group.levels or self._is_read(value, others)

    # ---- what it saves -----------------------------------------------------------------------

    def _gain(self, chain: Chain) -> int:
        """Bytes that need not move, a launch counted as some."""
        values, product, last = self.values, chain.product, chain.last
        gone = {*chain.nodes, *(t for t, h in self.slopes.values() if h is last)}
        reading = values.groups(product)
        before = nbytes(product) * (1 + len(reading))
        before += nbytes(last) if self._is_stored(last) else 0
        after = nbytes(last)
        if chain.keeps and chain.before is not None:
            before += nbytes(chain.before) if self._is_stored(chain.before) else 0
            after += nbytes(chain.before)
        groups = {id(g): g for n in chain.nodes[1:] if (g := values.group_of.get(n)) is not None}
        for group in groups.values():
            left = self._left(group, gone)
            if not left:
                before += LAUNCH
            shown = [last, *([chain.before] if chain.keeps and chain.before else [])]
            for value in shown:
                if self._is_read(value, left):
                    after += nbytes(value)
            read = chain.residual
            if read is not None and not self._is_read(read, left):
                before += nbytes(read)
        after += nbytes(chain.residual) if chain.residual is not None else 0
        return before - after

    def _is_stored(self, node: Node) -> bool:
        value = self.values.base(node)
        return value in self.partition.stored or value in self.values.roots

    def _is_read(self, node: Node, nodes: Iterable[Node]) -> bool:
        value = self.values.base(node)
        return any(value in map(self.values.base, n.inputs) for n in nodes)

    def _left(self, group: Group, gone: set[Node]) -> list[Node]:
        """Members that are still needed when some nodes are computed elsewhere."""
        done = set(gone)
        left: list[Node] = []
        for node in reversed(group.nodes):
            if node in done:
                continue
            users = list(self.values.computing(node))
            if users and node not in self.values.roots and all(u in done for u in users):
                done.add(node)
            else:
                left.append(node)
        return left


def _is_vector(node: Node, n: Any) -> bool:
    """Whether a tensor has one element for each of n columns."""
    long = [s for s in node.shape if s != 1]
    return bool(node.shape) and same(node.shape[-1], n) and len(long) <= 1


def _is_multiple(size: Any, by: int) -> bool:
    return isinstance(size, int) and size % by == 0
