"""Resizing and CenterCrop: images of one size.

An axis is resampled by sampling a *window* of it: the whole axis, a part (cropping), or more than
it has (padding). Sizes may be symbolic, so windows are tensors, and one trace serves images of all
sizes. Pixels are areas: sample i of n lies at (i + 1/2) * extent / n - 1/2.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from graphnn import ops
from graphnn.compiler.ir.types import FLOATS, as_dtype, is_float
from graphnn.dtypes import iinfo
from graphnn.function import function
from graphnn.keras.layers.preprocess import Preprocessing, as_tensor, at_least, choice
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError, ShapeError
from graphnn.state import state

_LARGE = 1 << 18  # pixel values from which on a compiled program is worth its making
_HALF = ("float16", "bfloat16")
_METHODS = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "area")
_EXACT = ("nearest", "bilinear", "bicubic")  # no sine, no matrix product
_FORMATS = ("channels_last", "channels_first")


class Window(NamedTuple):
    """What is sampled of an axis: `extent` places from `start` on, of an axis of `size`; 0-d int32
    tensors. Places outside of the axis have the value `fill`, if there are any."""

    start: Any
    extent: Any
    size: Any
    fill: float | None = None


# ---- weights of neighbours, by their distance in places --------------------------------------


def _triangle(d: Any) -> Any:
    return ops.maximum(1.0 - d, 0.0)


def _cubic(d: Any) -> Any:
    """Keys, Cubic convolution interpolation for digital image processing, 1981, with a = -1/2."""
    near = ((1.5 * d - 2.5) * d) * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return ops.where(d < 1.0, near, ops.where(d < 2.0, far, 0.0))


def _lanczos(radius: int) -> Callable[[Any], Any]:
    """sinc(d) sinc(d / radius) up to the radius."""

    def kernel(d: Any) -> Any:
        safe = ops.maximum(d, 1e-3) * math.pi
        value = radius * ops.sin(safe) * ops.sin(safe / radius) / (safe * safe)
        return ops.where(d <= 1e-3, 1.0, ops.where(d < radius, value, 0.0))

    return kernel


_KERNELS: dict[str, Callable[[Any], Any]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
    "lanczos3": _lanczos(3),
    "lanczos5": _lanczos(5),
}
_RADIUS = {"bicubic": 2, "lanczos3": 3, "lanczos5": 5}


# ---- one axis -------------------------------------------------------------------------------


def _steps(count: int) -> Any:
    return ops.cast(ops.arange(count), "float32")


def _along(values: Any, axis: int, ndim: int) -> Any:
    """A 1-D tensor in a shape that broadcasts along one axis."""
    return ops.reshape(values, tuple(-1 if a == axis else 1 for a in range(ndim)))


def _pick(x: Any, axis: int, places: Any, window: Window) -> Any:
    """The values at places of the window, those outside of it at its border."""
    at = ops.minimum(ops.maximum(places, 0), window.extent - 1) + window.start
    if window.fill is None:
        return ops.take(x, at, axis=axis)
    inside = ops.logical_and(at >= 0, at < window.size)
    at = ops.minimum(ops.maximum(at, 0), window.size - 1)
    fill = ops.cast(ops.convert_to_tensor(window.fill), x.dtype)
    return ops.where(_along(inside, axis, x.ndim), ops.take(x, at, axis=axis), fill)


def _nearest(x: Any, axis: int, count: int, window: Window) -> Any:
    scale = ops.cast(window.extent, "float32") / float(count)
    return _pick(x, axis, ops.cast(ops.floor((_steps(count) + 0.5) * scale), "int32"), window)


def _linear(x: Any, axis: int, count: int, window: Window) -> Any:
    """Between the two neighbours of each sample."""
    scale = ops.cast(window.extent, "float32") / float(count)
    at = (_steps(count) + 0.5) * scale - 0.5
    below = ops.floor(at)
    share = ops.cast(_along(at - below, axis, x.ndim), x.dtype)
    places = ops.cast(below, "int32")
    low, high = _pick(x, axis, places, window), _pick(x, axis, places + 1, window)
    return low + (high - low) * share


def _weighted(x: Any, axis: int, weights: Any) -> Any:
    """Sums over an axis with weights of shape (samples, size of the axis)."""
    letters = "abcd"[: x.ndim]
    out = letters.replace(letters[axis], "s")
    return ops.einsum(f"s{letters[axis]},{letters}->{out}", ops.cast(weights, x.dtype), x)


def _relative(x: Any, axis: int, window: Window) -> Any:
    """Places of the axis counted from the start of the window, float32, shape (1, size)."""
    places = ops.arange(x.shape[axis]) - window.start
    return ops.expand_dims(ops.cast(places, "float32"), 0)


def _between(method: str) -> Callable[..., Any]:
    """A few neighbours of each sample, weighted by a kernel."""
    kernel, radius = _KERNELS[method], _RADIUS[method]

    def resample(x: Any, axis: int, count: int, window: Window) -> Any:
        extent = ops.cast(window.extent, "float32")
        at = (_steps(count) + 0.5) * (extent / float(count)) - 0.5
        places = [ops.floor(at) + float(k) for k in range(1 - radius, radius + 1)]
        weights = []
        for place in places:
            inside = ops.logical_and(place >= 0.0, place < extent)
            weights.append(ops.where(inside, kernel(ops.abs(place - at)), 0.0))
        whole = functools.reduce(operator.add, weights)
        parts = [
            _pick(x, axis, ops.cast(place, "int32"), window)
            * ops.cast(_along(weight / whole, axis, x.ndim), x.dtype)
            for place, weight in zip(places, weights, strict=True)
        ]
        return functools.reduce(operator.add, parts)

    return resample


def _smooth(method: str) -> Callable[..., Any]:
    """Neighbours weighted by a kernel, which is widened where the axis gets shorter."""

    def resample(x: Any, axis: int, count: int, window: Window) -> Any:
        extent = ops.cast(window.extent, "float32")
        scale = extent / float(count)
        at = ops.expand_dims((_steps(count) + 0.5) * scale - 0.5, 1)
        places = _relative(x, axis, window)
        weights = _KERNELS[method](ops.abs(places - at) / ops.maximum(scale, 1.0))
        inside = ops.logical_and(places >= 0.0, places < extent)
        weights = ops.where(inside, weights, 0.0)
        return _weighted(x, axis, weights / ops.sum(weights, axis=1, keepdims=True))

    return resample


def _area(x: Any, axis: int, count: int, window: Window) -> Any:
    """The average of what a sample covers."""
    scale = ops.cast(window.extent, "float32") / float(count)
    left = ops.expand_dims(_steps(count) * scale, 1)
    places = _relative(x, axis, window)
    shared = ops.minimum(left + scale, places + 1.0) - ops.maximum(left, places)
    return _weighted(x, axis, ops.maximum(shared, 0.0) / scale)


def _resampler(method: str, antialias: bool) -> Callable[..., Any]:
    plain = {"nearest": _nearest, "area": _area}
    if method in plain:
        return plain[method]
    if antialias:
        return _smooth(method)
    return _linear if method == "bilinear" else _between(method)


# ---- images ---------------------------------------------------------------------------------


class _ImageLayer(Preprocessing):
    """A layer that makes images of one height and width. Images have 3 axes, or 4 with a batch."""

    def __init__(self, height: int, width: int, data_format: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        subject = type(self).__name__
        self.height = at_least(subject, "height", height, 1)
        self.width = at_least(subject, "width", width, 1)
        data_format = "channels_last" if data_format is None else data_format
        self.data_format = choice(subject, "data_format", data_format, _FORMATS)

    def _axes(self, ndim: int) -> tuple[int, int]:
        """The axes of height and width. Raises ShapeError unless there are 3 or 4 axes."""
        if ndim not in (3, 4):
            raise ShapeError(
                type(self).__name__,
                received=f"inputs with {ndim} axes",
                expected="one image with 3 axes, or a batch of images with 4",
                fix="add the axis of the channels: x[..., None]",
            )
        first = ndim - (2 if self.data_format == "channels_first" else 3)
        return first, first + 1

    def _sizes(self, x: Any) -> tuple[Any, Any]:
        """Height and width of images, as 0-d int32 tensors."""
        sizes, (h, w) = ops.shape(x), self._axes(x.ndim)
        return sizes[h], sizes[w]

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = list(input_shape)
        h, w = self._axes(len(shape))
        shape[h], shape[w] = self.height, self.width
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "data_format": self.data_format,
            "height": self.height,
            "width": self.width,
        }

    def _fitting(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Height and width that images would have in the wanted aspect ratio: (height for the given
        width, width for the given height)."""
        return width * self.height // self.width, height * self.width // self.height

    def _cropped(self, height: Any, width: Any) -> tuple[Window, Window]:
        """The greatest windows in the middle that have the wanted aspect ratio."""
        other_height, other_width = self._fitting(height, width)
        return _middle(_least(height, other_height), height), _middle(
            _least(width, other_width), width
        )


def _least(size: Any, other: Any) -> Any:
    return ops.maximum(ops.minimum(size, other), 1)


def _middle(extent: Any, size: Any) -> Window:
    return Window((size - extent) // 2, extent, size)


def _around(extent: Any, size: Any, fill: float) -> Window:
    """A window with the axis in its middle: equal borders, as in Keras, so it may be 1 shorter."""
    border = (extent - size) // 2
    return Window(-border, size + 2 * border, size, fill)


@register()
class Resizing(_ImageLayer):
    """Images resampled to a height and width.

    interpolation: "bilinear", "nearest", "bicubic", "lanczos3", "lanczos5" or "area".
    crop_to_aspect_ratio: without distortion, by cutting off what is too much. pad_to_aspect_ratio:
    without distortion, by adding borders of `fill_value`. antialias: average over more pixels where
    images get smaller. data_format: "channels_last" or "channels_first". Raises ArgumentError for
    other settings, or for both cropping and padding.
    Inputs: shape (height, width, channels), with or without a batch axis. Result: the inputs' dtype
    if they are integers, rounded; else the layer's.

    >>> layer = graphnn.keras.layers.Resizing(1, 2)
    >>> layer(np.array([[[0.0], [1.0], [2.0], [3.0]]], "float32")).numpy().tolist()
    [[[0.5], [2.5]]]
    """

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(height, width, data_format, **kwargs)
        self.interpolation = choice("Resizing", "interpolation", interpolation, _METHODS)
        self.fill_mode = choice("Resizing", "fill_mode", fill_mode, ("constant",))
        self.crop_to_aspect_ratio, self.pad_to_aspect_ratio = (
            crop_to_aspect_ratio,
            pad_to_aspect_ratio,
        )
        self.fill_value, self.antialias = fill_value, bool(antialias)
        self._large_calls = 0
        if crop_to_aspect_ratio and pad_to_aspect_ratio:
            raise ArgumentError(
                "Resizing",
                received="crop_to_aspect_ratio=True and pad_to_aspect_ratio=True",
                expected="at most one of them",
                fix="choose one",
            )

    def call(self, inputs: Any) -> Any:
        x = ops.convert_to_tensor(inputs)
        if x.is_traced or state.busy or math.prod(x.shape) < _LARGE:
            return self._resampled(x)
        self._large_calls += 1
        # For one call compiling takes longer than it saves. But what calls give must not depend on
        # their order, and not all methods give the same numbers to the last bit.
        once = self._large_calls == 1 and self.interpolation in _EXACT and not self.antialias
        return self._resampled(x) if once else self._compiled(x)

    @function
    def _compiled(self, x: Any) -> Any:
        return self._resampled(x)

    def _resampled(self, x: Any) -> Any:
        h, w = self._axes(x.ndim)
        dtype = x.dtype if not is_float(x.dtype) else as_dtype(self.compute_dtype)
        if self.interpolation != "nearest" and (not is_float(dtype) or dtype.name in _HALF):
            x = ops.cast(x, "float32")
        resample = _resampler(self.interpolation, self.antialias)
        x, (rows, columns) = self._windows(x, resample in (_nearest, _linear))
        y = resample(resample(x, h, self.height, rows), w, self.width, columns)
        return _saturated(y, dtype)

    def _windows(self, x: Any, can_fill: bool) -> tuple[Any, tuple[Window, Window]]:
        """Images, and what is sampled of their axes. can_fill: whether windows may be wider than
        the images; otherwise these are padded."""
        height, width = self._sizes(x)
        if self.crop_to_aspect_ratio:
            return x, self._cropped(height, width)
        if self.pad_to_aspect_ratio and can_fill:
            other_height, other_width = self._fitting(height, width)
            tall, wide = ops.maximum(height, other_height), ops.maximum(width, other_width)
            fill = float(self.fill_value)
            return x, (_around(tall, height, fill), _around(wide, width, fill))
        if self.pad_to_aspect_ratio:
            x = self._with_borders(x)
            height, width = self._sizes(x)
        return x, (_middle(height, height), _middle(width, width))

    def _with_borders(self, x: Any) -> Any:
        h, w = self._axes(x.ndim)
        sizes = x.shape[h], x.shape[w]
        if not all(isinstance(size, int) for size in sizes):
            raise ShapeError(
                "Resizing",
                received=f"images of shape {tuple(x.shape)}",
                expected="known sizes for pad_to_aspect_ratio with interpolation="
                f"{self.interpolation!r}",
                fix="give the sizes in Input(shape=...), or use bilinear or nearest interpolation "
                "without antialias",
            )
        borders = [(0, 0)] * x.ndim
        for axis, size, other in zip((h, w), sizes, self._fitting(*sizes), strict=True):
            border = (max(size, other) - size) // 2
            borders[axis] = (border, border)
        return ops.pad(x, borders, constant_values=self.fill_value)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "interpolation": self.interpolation,
            "crop_to_aspect_ratio": self.crop_to_aspect_ratio,
            "pad_to_aspect_ratio": self.pad_to_aspect_ratio,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "antialias": self.antialias,
        }


def _saturated(x: Any, dtype: Any) -> Any:
    """Floats rounded to integers and kept in their range; or just cast."""
    if x.dtype == dtype:
        return x
    if dtype in FLOATS or dtype.kind == "b":
        return ops.cast(x, dtype)
    limits = iinfo(dtype)
    return ops.cast(ops.clip(ops.round(x), float(limits.min), float(limits.max)), dtype)


@register()
class CenterCrop(_ImageLayer):
    """The middle of images, in a height and width.

    Of images that are smaller, the greatest part with the same aspect ratio, enlarged.
    data_format: "channels_last" or "channels_first". Inputs: shape (height, width, channels), with
    or without a batch axis. Result: the layer's dtype.

    >>> layer = graphnn.keras.layers.CenterCrop(1, 2)
    >>> layer(np.array([[[0.0], [1.0], [2.0], [3.0]]], "float32")).numpy().tolist()
    [[[1.0], [2.0]]]
    """

    def __init__(
        self, height: int, width: int, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(height, width, data_format, **kwargs)

    def call(self, inputs: Any) -> Any:
        x = ops.cast(as_tensor(inputs), self.compute_dtype)
        h, w = self._axes(x.ndim)
        sizes = x.shape[h], x.shape[w]
        if all(isinstance(size, int) for size in sizes):
            if sizes[0] >= self.height and sizes[1] >= self.width:
                return self._cut(x, h, sizes)
        rows, columns = self._windows(*self._sizes(x))
        y = _linear(_linear(x, h, self.height, rows), w, self.width, columns)
        return ops.cast(y, self.compute_dtype)

    def _cut(self, x: Any, axis: int, sizes: tuple[Any, ...]) -> Any:
        top, left = (sizes[0] - self.height) // 2, (sizes[1] - self.width) // 2
        rows, columns = slice(top, top + self.height), slice(left, left + self.width)
        return x[(slice(None),) * axis + (rows, columns)]

    def _windows(self, height: Any, width: Any) -> tuple[Window, Window]:
        """The middle where images are large enough, else a part with the same aspect ratio."""
        fits = ops.logical_and(height >= self.height, width >= self.width)
        rows, columns = self._cropped(height, width)
        return (
            _middle(ops.where(fits, self.height, rows.extent), height),
            _middle(ops.where(fits, self.width, columns.extent), width),
        )
