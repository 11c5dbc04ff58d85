"""What a workload must cost at least: its traffic and arithmetic over the machine's own rates."""

from dataclasses import dataclass
from itertools import pairwise

from benchmarks import data

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Size:
    """Least bytes read and written and least floating-point operations of one repetition."""

    bytes: int = 0
    flops: int = 0


@dataclass(frozen=True)
class Rates:
    """The machine in this run: bytes a second of a copy, operations a second of a product."""

    copy: float
    product: float

    def floor(self, size: Size) -> float:
        """Seconds: the larger of traffic / copy rate and arithmetic / product rate."""
        return max(size.bytes / self.copy, size.flops / self.product)


def train_step(sizes: tuple[int, ...], batch: int) -> Size:
    """An MLP with Adam: weights and two moments are read and written once.

    Products: forward, weight gradient, and input gradient except that of the first layer.
    """
    pairs = list(pairwise(sizes))
    products = [2 * batch * fan_in * fan_out for fan_in, fan_out in pairs]
    parameters = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairs)
    return Size(6 * FLOAT_BYTES * parameters, 3 * sum(products) - products[0])


def epoch() -> Size:
    """One epoch of the workload fit."""
    batches = data.FIT_SAMPLES / data.FIT_BATCH
    step = train_step(data.FIT_SIZES, data.FIT_BATCH)
    return Size(int(step.bytes * batches), int(step.flops * batches))


def _elements(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


SIZES = {
    "chain": Size(2 * FLOAT_BYTES * _elements(data.CHAIN_SHAPE)),
    "softmax_xent": Size(2 * FLOAT_BYTES * _elements(data.SOFTMAX_SHAPE)),
    "layernorm": Size(5 * FLOAT_BYTES * _elements(data.NORM_SHAPE)),
    "mlp": train_step(data.MLP_SIZES, data.MLP_BATCH),
    "mlp_tiny": train_step(data.TINY_SIZES, data.TINY_BATCH),
    "fit": epoch(),
}
