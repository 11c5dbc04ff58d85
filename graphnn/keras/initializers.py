"""Initial values of weights: each is a function from (shape, dtype) to a tensor.

An initializer without a seed draws one when it is made, so that one object gives the same values
for the same shape each time, and two objects differ.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphnn import ops, random
from graphnn.compiler.ir.types import as_dtype
from graphnn.keras.registry import Registry
from graphnn.keras.seeds import new_seed
from graphnn.runtime.errors import ArgumentError, ShapeError, missing_method

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "deserialize",
    "get",
    "serialize",
]

Shape = tuple[int, ...]

# Standard deviation of a standard normal variable cut at -2 and 2.
_TRUNCATED_STDDEV = 0.87962566103423978

_registry = Registry("initializers")
serialize, deserialize = _registry.serialize, _registry.deserialize


def get(identifier: Any) -> Any:
    """The initializer that a name, number, array, config or callable stands for.

    >>> get("zeros")((2,)).numpy().tolist()
    [0.0, 0.0]
    """
    if isinstance(identifier, int | float | np.ndarray):
        return Constant(identifier)
    return _registry.get(identifier)


class Initializer:
    """Base: subclasses define `__call__(shape, dtype=None)` and `get_config`."""

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        """A tensor of a shape and dtype (float32 by default)."""
        raise missing_method(self, "__call__(self, shape, dtype=None)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        """An equal initializer."""
        return cls(**config)


@_registry.register("zero")
class Zeros(Initializer):
    """All zeros.

    >>> Zeros()((2,)).numpy().tolist()
    [0.0, 0.0]
    """

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        return ops.zeros(shape, dtype=as_dtype(dtype or "float32"))


@_registry.register("one")
class Ones(Initializer):
    """All ones.

    >>> Ones()((2,)).numpy().tolist()
    [1.0, 1.0]
    """

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        return ops.ones(shape, dtype=as_dtype(dtype or "float32"))


@_registry.register()
class Constant(Initializer):
    """One number, or an array that broadcasts to the shape.

    >>> Constant(3.0)((2,)).numpy().tolist()
    [3.0, 3.0]
    """

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        array = np.asarray(self.value).astype(as_dtype(dtype or "float32"))
        return ops.asarray(np.broadcast_to(array, shape).copy())

    def get_config(self) -> dict[str, Any]:
        plain = self.value.tolist() if isinstance(self.value, np.ndarray) else self.value
        return {"value": plain}


@_registry.register("identity", "eye")
class Identity(Initializer):
    """A multiple of the identity matrix; shape (rows, columns). Raises ShapeError for others.

    >>> Identity()((2, 2)).numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        _check_matrix(shape, exact=True)
        return ops.asarray(
            (self.gain * np.eye(shape[0], shape[1])).astype(as_dtype(dtype or "float32"))
        )

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain}


class RandomInitializer(Initializer):
    """Base of random ones. seed: an int, or None to draw one now from graphnn.random's stream."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._seed = new_seed() if seed is None else int(seed)

    def generator(self) -> Any:
        """A generator at the beginning of this initializer's stream."""
        return random.Generator(self._seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


@_registry.register("normal")
class RandomNormal(RandomInitializer):
    """Normal distribution.

    >>> RandomNormal(seed=1)((2, 3)).shape == (2, 3)
    True
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        kind = as_dtype(dtype or "float32")
        return self.generator().normal(shape, mean=self.mean, stddev=self.stddev, dtype=kind)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


@_registry.register()
class TruncatedNormal(RandomInitializer):
    """Normal distribution cut at two standard deviations.

    >>> bool((abs(TruncatedNormal(seed=1)((100,)).numpy()) <= 0.1).all())
    True
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        kind = as_dtype(dtype or "float32")
        return self.generator().truncated_normal(
            shape, mean=self.mean, stddev=self.stddev, dtype=kind
        )

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


@_registry.register("uniform")
class RandomUniform(RandomInitializer):
    """Uniform distribution over [minval, maxval).

    >>> bool((abs(RandomUniform(seed=1)((100,)).numpy()) <= 0.05).all())
    True
    """

    def __init__(
        self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        kind = as_dtype(dtype or "float32")
        return self.generator().uniform(shape, minval=self.minval, maxval=self.maxval, dtype=kind)

    def get_config(self) -> dict[str, Any]:
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


def compute_fans(shape: Shape) -> tuple[float, float]:
    """Inputs and outputs of one unit: the two last axes times the receptive field before them.

    >>> compute_fans((784, 128)), compute_fans((3, 3, 16, 32))
    ((784.0, 128.0), (144.0, 288.0))
    """
    if len(shape) < 2:
        size = float(shape[0]) if shape else 1.0
        return size, size
    field = math.prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


@_registry.register()
class VarianceScaling(RandomInitializer):
    """Zero mean and variance `scale / n`, where n is the number of inputs, outputs or their mean.

    scale: positive. mode: "fan_in", "fan_out" or "fan_avg". distribution: "truncated_normal",
    "untruncated_normal" or "uniform". Raises ArgumentError for others.

    >>> VarianceScaling(2.0, seed=1)((8, 4)).shape == (8, 4)
    True
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        _check_choice("scale", scale, scale > 0, "a positive number")
        modes = ("fan_in", "fan_out", "fan_avg")
        _check_choice("mode", mode, mode in modes, ", ".join(modes))
        kinds = ("truncated_normal", "normal", "untruncated_normal", "uniform")
        _check_choice("distribution", distribution, distribution in kinds, ", ".join(kinds))
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        kind = as_dtype(dtype or "float32")
        fan_in, fan_out = compute_fans(shape)
        count = {"fan_in": fan_in, "fan_out": fan_out}.get(self.mode, (fan_in + fan_out) / 2.0)
        variance = self.scale / max(1.0, count)
        generator = self.generator()
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return generator.uniform(shape, minval=-limit, maxval=limit, dtype=kind)
        stddev = math.sqrt(variance)
        if self.distribution == "untruncated_normal":
            return generator.normal(shape, mean=0.0, stddev=stddev, dtype=kind)
        stddev /= _TRUNCATED_STDDEV
        return generator.truncated_normal(shape, mean=0.0, stddev=stddev, dtype=kind)

    def get_config(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "seed": self.seed,
        }


def _check_choice(name: str, value: Any, right: bool, expected: str) -> None:
    if not right:
        raise ArgumentError(
            "VarianceScaling",
            received=f"{name}={value!r}",
            expected=expected,
            fix=f"change {name}",
        )


class _Scaled(VarianceScaling):
    """VarianceScaling with fixed settings; only the seed is an argument."""

    settings: tuple[float, str, str]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.settings, seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


@_registry.register()
class GlorotUniform(_Scaled):
    """Uniform with variance 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""

    settings = (1.0, "fan_avg", "uniform")


@_registry.register()
class GlorotNormal(_Scaled):
    """Truncated normal with variance 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""

    settings = (1.0, "fan_avg", "truncated_normal")


@_registry.register()
class HeUniform(_Scaled):
    """Uniform with variance 2 / inputs (He et al., 2015)."""

    settings = (2.0, "fan_in", "uniform")


@_registry.register()
class HeNormal(_Scaled):
    """Truncated normal with variance 2 / inputs (He et al., 2015)."""

    settings = (2.0, "fan_in", "truncated_normal")


@_registry.register()
class LecunUniform(_Scaled):
    """Uniform with variance 1 / inputs (LeCun et al., 1998)."""

    settings = (1.0, "fan_in", "uniform")


@_registry.register()
class LecunNormal(_Scaled):
    """Truncated normal with variance 1 / inputs (LeCun et al., 1998)."""

    settings = (1.0, "fan_in", "truncated_normal")


@_registry.register()
class Orthogonal(RandomInitializer):
    """A random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al., 2014).

    shape: at least two axes, all but the last folded into rows. Raises ShapeError for others.

    >>> q = Orthogonal(seed=1)((4, 2)).numpy()
    >>> bool(abs(q.T @ q - np.eye(2)).max() < 1e-6)
    True
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        _check_matrix(shape, exact=False)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        sizes = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(self.generator().normal(sizes, dtype="float64").numpy())
        # The sign of the diagonal makes the distribution uniform over orthogonal matrices.
        q = q * np.sign(np.diagonal(r))
        q = q if rows >= columns else q.T
        return ops.asarray((self.gain * q).reshape(shape).astype(as_dtype(dtype or "float32")))

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, "seed": self.seed}


def _check_matrix(shape: Shape, exact: bool) -> None:
    if len(shape) == 2 or (len(shape) > 2 and not exact):
        return
    raise ShapeError(
        "an initializer",
        received=f"shape {shape}",
        expected="two axes" if exact else "two axes or more",
        fix="use another initializer for this weight",
    )


zeros, ones, constant, identity, orthogonal = Zeros, Ones, Constant, Identity, Orthogonal
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling = VarianceScaling
glorot_uniform, glorot_normal = GlorotUniform, GlorotNormal
he_uniform, he_normal, lecun_uniform, lecun_normal = HeUniform, HeNormal, LecunUniform, LecunNormal
