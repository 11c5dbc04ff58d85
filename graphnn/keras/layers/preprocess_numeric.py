"""Normalization and Discretization: features scaled, or cut into ranges, as seen in `adapt`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphnn import ops
from graphnn.compiler.ir.types import int32
from graphnn.keras.layers.preprocess import (
    Array,
    Preprocessing,
    as_tensor,
    at_least,
    batches_of,
    choice,
    chunks,
    count_not_above,
    encode,
    encoded_shape,
    is_whole,
    not_adapted,
    numbers,
    plain,
    refuse_sparse,
)
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError, ShapeError

_HALF = ("float16", "bfloat16")
_EPSILON = 1e-7  # the least standard deviation that is divided by, as in Keras
_UNBATCHED = 128  # examples of a Dataset without batches that are taken together


class Moments:
    """Mean and variance of a stream, in float64.

    Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances,
    1979: counts, means and sums of squared deviations of two parts give those of the whole.
    """

    def __init__(self, axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.axes, self.count = axes, 0
        self.mean, self.deviations = np.zeros(shape), np.zeros(shape)

    def add(self, batch: Array) -> None:
        """Take a batch into account; `axes` of it are averaged over."""
        for part in chunks(batch) if 0 in self.axes else [batch]:
            self._add_part(part.astype(np.float64))

    def _add_part(self, part: Array) -> None:
        count = math.prod(part.shape[axis] for axis in self.axes)
        if not part.size:
            return
        kept = np.mean(part, axis=self.axes, keepdims=True)
        mean = kept.reshape(self.mean.shape)
        part -= kept
        squares = np.sum(np.square(part, out=part), axis=self.axes)
        total = self.count + count
        shift = mean - self.mean
        self.mean = self.mean + shift * (count / total)
        self.deviations = self.deviations + squares + shift**2 * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Array:
        """Variance of the whole population."""
        return self.deviations / max(self.count, 1)


@register()
class Normalization(Preprocessing):
    """`(x - mean) / sqrt(variance)` with statistics of the training data.

    axis: the axes that have a mean and variance for each index, the last one by default; None for
    one mean and variance of all elements. mean, variance: the statistics, instead of `adapt`; a
    number, or values that broadcast to the kept axes. invert: the other way round,
    `x * sqrt(variance) + mean`. Raises ArgumentError for one of mean and variance without the
    other. Inputs: numbers of any shape. Result: the same shape, in the layer's dtype.

    The statistics are three non-trainable weights: mean, variance, and the count of elements that
    they are of.

    >>> layer = graphnn.keras.layers.Normalization(axis=None)
    >>> layer.adapt(np.array([1.0, 2.0, 3.0, 4.0, 5.0], "float32"))
    >>> layer(np.array([1.0, 3.0], "float32")).numpy().round(4).tolist()
    [-1.41..., 0.0]
    """

    def __init__(
        self,
        axis: Any = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        self.input_mean, self.input_variance, self.invert = plain(mean), plain(variance), invert
        self.supports_masking = True
        self.adapt_mean: Any = None
        self.adapt_variance: Any = None
        self.count: Any = None
        self._broadcast_shape: tuple[int, ...] = ()
        self._kept: tuple[int, ...] = ()
        self._sizes: tuple[int, ...] = ()
        if mean is not None or variance is not None:
            self._check_given(mean, variance)

    def _check_given(self, mean: Any, variance: Any) -> None:
        shapes = [None if v is None else np.shape(v) for v in (mean, variance)]
        if None in shapes or shapes[0] != shapes[1] or len(shapes[0] or ()) > len(self.axis):
            raise ArgumentError(
                "Normalization",
                received=f"mean={mean!r} and variance={variance!r} for axis={self.axis}",
                expected="both, of one shape, with at most one axis for each of `axis`",
                fix="give both, or neither and call adapt",
            )

    def build(self, input_shape: Any) -> None:
        ndim = len(input_shape)
        if any(not -ndim <= a < ndim for a in self.axis):
            raise ArgumentError(
                "Normalization",
                received=f"axis={self.axis} for inputs with {ndim} axes",
                expected=f"axes from {-ndim} to {ndim - 1}",
                fix="give an axis that the inputs have",
            )
        self._kept = tuple(sorted({a % ndim for a in self.axis}))
        sizes = tuple(input_shape[a] for a in self._kept)
        if None in sizes:
            raise ShapeError(
                "Normalization",
                received=f"inputs of shape {tuple(input_shape)}",
                expected=f"known sizes on the axes {self._kept}, which have their own statistics",
                fix="give the size in Input(shape=...), or use axis=None",
            )
        self._sizes = tuple(map(int, sizes))
        self._broadcast_shape = tuple(input_shape[a] if a in self._kept else 1 for a in range(ndim))
        if self.input_mean is None:
            self._add_weights(self._sizes)

    def _add_weights(self, shape: tuple[int, ...]) -> None:
        self.adapt_mean = self.add_weight(
            name="mean", shape=shape, initializer="zeros", trainable=False
        )
        self.adapt_variance = self.add_weight(
            name="variance", shape=shape, initializer="ones", trainable=False
        )
        self.count = self.add_weight(
            name="count", shape=(), initializer="zeros", dtype="int64", trainable=False
        )

    def adapt(self, data: Any) -> None:
        """Take mean and variance of data: an array, a tensor, or batches of a Dataset, a generator
        or a list of arrays, which are read once and never held together.

        Earlier statistics are forgotten. Raises StateError if they were given to the constructor,
        ShapeError for data that do not fit the layer or each other.
        """
        if self.input_mean is not None:
            raise ArgumentError(
                f"adapt of {self.name}",
                received="a layer with mean and variance from its constructor",
                expected="a layer without",
                fix="leave mean and variance out",
            )
        moments = None
        for batch in self._batches(data):
            array = numbers(batch, self.name)
            moments = moments or self._start(array.shape)
            self._check_sizes(array.shape)
            moments.add(array)
        if moments is not None:
            self.adapt_mean.assign(moments.mean.astype(self.adapt_mean.dtype))
            self.adapt_variance.assign(moments.variance.astype(self.adapt_variance.dtype))
            self.count.assign(np.int64(moments.count))

    def _batches(self, data: Any) -> Iterable[Any]:
        if is_whole(data):
            return [data]
        spec = getattr(data, "element_spec", None)
        spec = spec[0] if isinstance(spec, tuple) else spec
        shape = tuple(getattr(spec, "shape", (0, 0)))
        if hasattr(data, "batch") and len(shape) == 1 and shape[0] is not None:
            data = data.batch(_UNBATCHED)  # single examples; batches of numbers have size None
        return batches_of(data, self.name)

    def _start(self, shape: tuple[int, ...]) -> Moments:
        if not self.built:
            self.build(shape)
        reduced = tuple(a for a in range(len(shape)) if a not in self._kept)
        return Moments(reduced, self._sizes)

    def _check_sizes(self, shape: tuple[int, ...]) -> None:
        fits = len(shape) == len(self._broadcast_shape)
        if not fits or tuple(shape[a] for a in self._kept) != self._sizes:
            raise ShapeError(
                f"adapt of {self.name}",
                received=f"a batch of shape {tuple(shape)}",
                expected=f"{len(self._broadcast_shape)} axes, of sizes {self._sizes} on the axes "
                f"{self._kept}",
                fix="give data shaped like the layer's inputs",
            )

    @property
    def mean(self) -> Any:
        """The mean, in a shape that broadcasts against inputs; None before the layer is built."""
        return self._statistic(self.input_mean, self.adapt_mean)

    @property
    def variance(self) -> Any:
        """The variance, in a shape that broadcasts against inputs; None before it is built."""
        return self._statistic(self.input_variance, self.adapt_variance)

    def _statistic(self, given: Any, weight: Any) -> Any:
        if not self.built:
            return None
        if given is None:
            return ops.reshape(weight, self._broadcast_shape)
        wide = "float32" if self.variable_dtype in _HALF else self.variable_dtype
        array = np.asarray(given, wide)
        sizes = np.broadcast_to(array, self._sizes) if array.ndim else array
        return ops.convert_to_tensor(np.broadcast_to(self._spread(sizes), self._broadcast_shape))

    def _spread(self, array: Array) -> Array:
        return array.reshape(self._broadcast_shape) if array.ndim else array

    def call(self, inputs: Any) -> Any:
        # Half precision would lose the difference of a large mean and a value near it.
        wide = "float32" if self.compute_dtype in _HALF else self.compute_dtype
        x = ops.cast(inputs, wide)
        mean, scale = self.mean, ops.maximum(ops.sqrt(self.variance), _EPSILON)
        if x.ndim < mean.ndim and set(mean.shape[: mean.ndim - x.ndim]) == {1}:
            shape = mean.shape[mean.ndim - x.ndim :]  # one example, without the batch axis
            mean, scale = ops.reshape(mean, shape), ops.reshape(scale, shape)
        mean, scale = ops.cast(mean, wide), ops.cast(scale, wide)
        y = x * scale + mean if self.invert else (x - mean) / scale
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "axis": self.axis,
            "invert": self.invert,
            "mean": self.input_mean,
            "variance": self.input_variance,
        }


# ---- quantiles of a stream ------------------------------------------------------------------


class Quantiles:
    """Values and weights that stand for the distribution of a stream, as Keras summarises it.

    A batch is represented by one value out of each 1/epsilon-th of its sorted values; the summary
    of two parts is merged by weight and thinned out, by interpolation, to 1/epsilon values.
    """

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon
        self.values, self.weights = np.empty(0, np.float32), np.empty(0, np.float32)

    def add(self, batch: Array) -> None:
        """Take a batch into account."""
        flat = np.sort(batch.astype(np.float32).reshape(-1))
        if not flat.size:
            return
        step = max(flat.size * self.epsilon, 1.0)
        picked = flat[int(step - 1) :: int(step)]
        values = np.concatenate((picked, self.values))
        weights = np.concatenate((np.full(picked.shape, step, np.float32), self.weights))
        order = np.argsort(values)
        self.values, self.weights = values[order], weights[order]
        self._thin_out()

    def _thin_out(self) -> None:
        """Keep at most 1/epsilon values."""
        shares = self._shares(self.epsilon)
        if shares is None:
            return
        total = self.weights.cumsum()
        values = np.interp(shares, total / total[-1], self.values)
        below = np.interp(shares, total / total[-1], total)
        self.values = values.astype(np.float32)
        self.weights = np.diff(below, prepend=0.0).astype(np.float32)

    def _shares(self, part: float) -> Array | None:
        """part, 2 part, ... 1; None where there are too few values for that many."""
        return None if self.values.size * part < 1 else part + np.arange(0.0, 1.0, part)

    def boundaries(self, count: int) -> Array:
        """The values that divide the stream into `count` parts of about equal weight."""
        shares = self._shares(1.0 / count)
        if shares is None:
            return self.values[:-1]
        total = self.weights.cumsum()
        cuts: Array = np.interp(shares, total / total[-1], self.values).astype(np.float32)
        return cuts[:-1]


@register()
class Discretization(Preprocessing):
    """The number of the range that each value falls into.

    bin_boundaries: where one range ends and the next begins, ascending: [0, 1] makes the ranges
    below 0, from 0 to below 1, and from 1 on. num_bins: the number of ranges, whose boundaries
    `adapt` chooses so that about equally many values fall into each. epsilon: the error that is
    allowed in that. output_mode: "int", or vectors "one_hot", "multi_hot" or "count" over the last
    axis. Raises ArgumentError for both or none of the first two, and for `sparse=True`.
    Result: int32, the shape of the inputs; vectors in the layer's dtype.

    >>> layer = graphnn.keras.layers.Discretization(bin_boundaries=[0.0, 1.0, 2.0])
    >>> layer(np.array([[-1.5, 1.0], [3.4, 0.5]])).numpy().tolist()
    [[0, 2], [3, 1]]
    """

    def __init__(
        self,
        bin_boundaries: Any = None,
        num_bins: int | None = None,
        epsilon: float = 0.01,
        output_mode: str = "int",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_sparse("Discretization", sparse=sparse)
        modes = ("int", "one_hot", "multi_hot", "count")
        self.output_mode = choice("Discretization", "output_mode", output_mode, modes)
        if (bin_boundaries is None) == (num_bins is None):
            raise ArgumentError(
                "Discretization",
                received=f"bin_boundaries={bin_boundaries!r} and num_bins={num_bins!r}",
                expected="one of the two",
                fix="give the boundaries, or the number of bins and call adapt",
            )
        if not 0 < epsilon <= 1:
            raise ArgumentError(
                "Discretization",
                received=f"epsilon={epsilon!r}",
                expected="a number above 0 and up to 1",
                fix="for example epsilon=0.01",
            )
        self.num_bins = (
            None if num_bins is None else at_least("Discretization", "num_bins", num_bins, 1)
        )
        self.epsilon = epsilon
        self.bin_boundaries: Any = None
        self._quantiles = Quantiles(epsilon)
        self._table: Array = np.empty(0, np.float32)
        if bin_boundaries is not None:
            self._set_boundaries(bin_boundaries)

    def _set_boundaries(self, boundaries: Any) -> None:
        table = np.asarray(plain(boundaries), self._wide)
        if table.ndim != 1 or bool(np.any(np.diff(table) < 0)):
            raise ArgumentError(
                "Discretization",
                received=f"bin_boundaries={boundaries!r}",
                expected="a list of numbers in ascending order",
                fix="sort the boundaries",
            )
        self._table, self.bin_boundaries = table, list(plain(boundaries))

    @property
    def _wide(self) -> str:
        return "float32" if self.compute_dtype != "float64" else "float64"

    def _cast_input(self, value: Any) -> Any:
        return as_tensor(value)  # boundaries are compared with in full precision

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Choose the boundaries from data: an array, a tensor, or batches of a Dataset, a generator
        or a list of arrays. steps: number of batches to read, all by default.

        Raises ArgumentError if the boundaries were given to the constructor.
        """
        self.reset_state()
        if is_whole(data):
            self.update_state(data)
        else:
            for batch in batches_of(data, self.name, steps):
                self.update_state(batch)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Take a batch into account, for the boundaries that `finalize_state` sets."""
        if self.num_bins is None:
            raise ArgumentError(
                f"adapt of {self.name}",
                received="a layer with bin_boundaries from its constructor",
                expected="a layer with num_bins",
                fix="give num_bins instead of bin_boundaries",
            )
        self._quantiles.add(numbers(data, self.name))

    def finalize_state(self) -> None:
        """Set the boundaries from the batches seen since `reset_state`."""
        if self.num_bins is not None and self._quantiles.values.size:
            self._set_boundaries(self._quantiles.boundaries(self.num_bins).tolist())

    def reset_state(self) -> None:
        """Forget the batches seen so far; the boundaries stay."""
        self._quantiles = Quantiles(self.epsilon)

    @property
    def output_dtype(self) -> Any:
        """Dtype of the results."""
        return int32 if self.output_mode == "int" else self.dtype_policy.compute

    def call(self, inputs: Any) -> Any:
        if self.bin_boundaries is None:
            raise not_adapted(self, "bin_boundaries")
        found = count_not_above(self._table, ops.cast(inputs, self._wide))
        return encode(found, self.output_mode, len(self._table) + 1, self.output_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        known = self.bin_boundaries is not None
        depth = len(self._table) + 1 if known else self.num_bins
        return encoded_shape(input_shape, self.output_mode, depth)

    def get_config(self) -> dict[str, Any]:
        # As in Keras, whose constructor does not take `trainable`.
        base = {k: v for k, v in super().get_config().items() if k != "trainable"}
        return base | {
            "bin_boundaries": self.bin_boundaries,
            "num_bins": self.num_bins,
            "epsilon": self.epsilon,
            "output_mode": self.output_mode,
            "sparse": False,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Discretization:
        """An equal layer, with the boundaries that the other had found."""
        found = config.get("bin_boundaries")
        if config.get("num_bins") is None or found is None:
            return cls(**config)
        layer = cls(**config | {"bin_boundaries": None})
        layer._set_boundaries(found)
        return layer
