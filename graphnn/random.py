"""Random numbers: the same in eager and compiled code, on each machine and after a restart.

A `Generator` keeps a state of four 32-bit words: seed and count, in a Variable. Each draw uses the
current state and raises the count by one. Functions of this module draw from the global generator,
which `set_seed` starts anew.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from graphnn.apply import TENSOR_OPS, cast, constant_of, convert
from graphnn.compiler.ir.types import (
    DEFAULT_FLOAT,
    DType,
    TensorType,
    as_dtype,
    describe,
    int32,
    is_float,
    is_integer,
    uint32,
)
from graphnn.compiler.ops import random as _ops
from graphnn.draws import RandomState, following
from graphnn.ops.public import call
from graphnn.runtime import devices
from graphnn.runtime.errors import ArgumentError, DTypeError
from graphnn.sizes import integer, new_shape, one_axis
from graphnn.state import init_scope, state
from graphnn.tensor import Operand, Tensor

__all__ = [
    "Generator",
    "SeedGenerator",
    "bernoulli",
    "categorical",
    "get_global_generator",
    "normal",
    "permutation",
    "randint",
    "set_seed",
    "shuffle",
    "stateless_normal",
    "stateless_uniform",
    "truncated_normal",
    "uniform",
]

_WORD = 0xFFFFFFFF
_STATE_TYPE = TensorType((4,), uint32)


def _words(seed: Any) -> np.ndarray[Any, Any]:
    """The state for a seed: two words of seed, count 0. None asks the system for a seed."""
    if seed is None:
        seed = int.from_bytes(os.urandom(8), "little")
    number = int(integer(seed, "seed")) & 0xFFFFFFFFFFFFFFFF
    return np.array([number & _WORD, number >> 32, 0, 0], uint32)


class Generator:
    """A stream of random numbers.

    seed: an integer; None takes one from the system. The state is a Variable, `state`, that
    checkpoints can hold. In `@function` a draw reads and assigns it, so each call goes on with the
    stream. In a function that a Dataset calls, draws are determined by the dataset's seed, the
    pass, the element and the generator's seed, and leave the state as it is.

    >>> a, b = graphnn.random.Generator(7), graphnn.random.Generator(7)
    >>> bool(graphnn.all(a.normal((3,)) == b.normal((3,))))
    True
    """

    def __init__(self, seed: Any = None) -> None:
        with init_scope():
            self.state = RandomState(_words(seed))
        self._lock = threading.Lock()

    @classmethod
    def from_seed(cls, seed: Any, alg: Any = None) -> Generator:
        """A generator with a seed."""
        return cls(seed)

    @classmethod
    def from_non_deterministic_state(cls, alg: Any = None) -> Generator:
        """A generator with a seed from the system."""
        return cls()

    def reset_from_seed(self, seed: Any) -> None:
        """Start the stream of a seed."""
        self.state.assign(_words(seed))

    def next(self) -> Tensor:
        """The state of the next draw, uint32[4]; the generator goes on to the one after."""
        if state.trace is not None:
            current = self.state._quiet_read()
            self.state.assign(_advanced(current))
            return current
        draws = state.draws
        if draws is not None and draws.covers(self.state):
            words = draws.words(self.state)
            draws.goes_on(self.state, following(words))
            return Tensor(words)
        with self._lock:
            if devices.is_device_array(self.state._buffer):
                return Tensor(self.state.taken())
            words = self.state._buffer.copy()
            self.state._write(following(words))
        return Tensor(words)

    def split(self, count: int = 1) -> list[Generator]:
        """New generators whose streams have nothing in common with this one's or each other's."""
        words = _bits(self.next(), (count, 2)).numpy()
        return [Generator(int(low) | int(high) << 32) for low, high in words]

    def normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, name: Any = None
    ) -> Tensor:
        """See `normal`."""
        return normal(shape, mean, stddev, dtype, seed=self)

    def uniform(
        self, shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = None, name: Any = None
    ) -> Tensor:
        """See `uniform`."""
        return uniform(shape, minval, maxval, dtype, seed=self)

    def truncated_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, name: Any = None
    ) -> Tensor:
        """See `truncated_normal`."""
        return truncated_normal(shape, mean, stddev, dtype, seed=self)

    def randint(self, shape: Any, minval: Any, maxval: Any, dtype: Any = None) -> Tensor:
        """See `randint`."""
        return randint(shape, minval, maxval, dtype, seed=self)

    def bernoulli(self, shape: Any, p: float = 0.5, dtype: Any = "bool") -> Tensor:
        """See `bernoulli`."""
        return bernoulli(shape, p, dtype, seed=self)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields, _lock=threading.Lock())

    def __repr__(self) -> str:
        return f"<Generator {self.state!r}>"


class SeedGenerator(Generator):
    """What layers with randomness keep: a Generator whose seed is remembered.

    seed: an integer; None draws one from the global generator, so `set_seed` makes it
    reproducible.
    """

    def __init__(self, seed: Any = None, name: str | None = None) -> None:
        if isinstance(seed, Generator):
            seed = _fresh_seed(seed)
        self.seed = _fresh_seed(_GLOBAL) if seed is None else int(seed)
        self.name = name or "seed_generator"
        super().__init__(self.seed)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal one."""
        return {"seed": self.seed, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeedGenerator:
        """The reverse of `get_config`."""
        return cls(**config)


def _fresh_seed(generator: Generator) -> int:
    with init_scope():
        return int(_bits(generator.next(), (1,)).numpy()[0])


def _bits(words: Tensor, shape: tuple[int, ...]) -> Tensor:
    return TENSOR_OPS.random_bits(words, shape=shape)  # type: ignore[no-any-return]


def _advanced(words: Tensor) -> Tensor:
    """The same in a trace."""
    low = words[2:3]
    carry = TENSOR_OPS.cast(TENSOR_OPS.equal(low, _WORD), dtype="uint32")
    first = constant_of(np.array([0, 0, 1, 0]), uint32)
    second = constant_of(np.array([0, 0, 0, 1]), uint32)
    return TENSOR_OPS.add(TENSOR_OPS.add(words, first), TENSOR_OPS.multiply(second, carry))  # type: ignore[no-any-return]


# ---- the global generator, and one for each seed that a call names ---------------------------

_GLOBAL = Generator()
_GLOBAL.state.is_global = True
_SEEDED: dict[int, Generator] = {}


def _come_home(has_gpu: bool) -> None:
    """When no GPU is in use any more, the states are on the host again."""
    for generator in (_GLOBAL, *_SEEDED.values()):
        if not has_gpu:
            generator.state._move(devices.host)


devices.on_change.append(_come_home)


def get_global_generator() -> Generator:
    """The generator from which the functions of this module draw.

    >>> isinstance(graphnn.random.get_global_generator(), graphnn.random.Generator)
    True
    """
    return _GLOBAL


def set_seed(seed: int) -> None:
    """Start the global generator, and those of calls with a `seed`, from the beginning.

    >>> graphnn.random.set_seed(1)
    >>> first = graphnn.random.normal((2,))
    >>> graphnn.random.set_seed(1)
    >>> bool(graphnn.all(first == graphnn.random.normal((2,))))
    True
    """
    _GLOBAL.reset_from_seed(seed)
    for number, generator in _SEEDED.items():
        generator.reset_from_seed(number)


def _state(seed: Any) -> Tensor:
    """The state of one draw: of the global generator, of a given one, or of a seed's stream."""
    if seed is None:
        return _GLOBAL.next()
    if isinstance(seed, Generator):
        return seed.next()
    number = int(integer(seed, "seed"))
    if number not in _SEEDED:
        generator = Generator(number)
        generator.state.born_in = None  # it outlives the pipeline's call that may go on here
        _SEEDED.setdefault(number, generator)
    return _SEEDED[number].next()


# ---- distributions ---------------------------------------------------------------------------


def _float(dtype: Any, subject: str, *values: Any) -> DType:
    """The dtype of the result: as asked, else that of tensor arguments, else float32."""
    if dtype is None:
        known = [v.dtype for v in values if isinstance(v, Operand) and is_float(v.dtype)]
        return known[0] if known else DEFAULT_FLOAT
    wanted = as_dtype(dtype)
    if not is_float(wanted):
        raise DTypeError(
            subject,
            received=f"dtype {wanted.name}",
            expected="a floating-point dtype",
            fix="use randint for integers, or cast the result",
        )
    return wanted


def _scaled(x: Tensor, factor: Any, offset: Any) -> Tensor:
    """x * factor + offset, where these are not 1 and 0."""
    if isinstance(factor, Operand) or factor != 1:
        x = TENSOR_OPS.multiply(x, _like(factor, x))
    if isinstance(offset, Operand) or offset != 0:
        x = TENSOR_OPS.add(x, _like(offset, x))
    return x


def _like(value: Any, x: Tensor) -> Any:
    return value if isinstance(value, int | float) else cast(convert(value), x.dtype)


def normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = None,
    seed: Any = None,
    name: Any = None,
) -> Tensor:
    """Normally distributed numbers.

    shape: sizes. mean, stddev: numbers, or tensors that broadcast to the shape. dtype: a float
    dtype, float32 by default. seed: an integer for a stream of its own, or a Generator.

    >>> graphnn.random.normal((2, 3)).shape
    (2, 3)
    """
    wanted = _float(dtype, "random.normal", mean, stddev)
    sizes = new_shape(shape, "random.normal")
    x = TENSOR_OPS.random_normal(_state(seed), shape=sizes, dtype=wanted.name)
    return _scaled(x, stddev, mean)


def truncated_normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = None,
    seed: Any = None,
    name: Any = None,
) -> Tensor:
    """Normally distributed numbers within two standard deviations of the mean.

    Arguments as in `normal`.

    >>> bool(graphnn.all(graphnn.abs(graphnn.random.truncated_normal((99,))) <= 2))
    True
    """
    wanted = _float(dtype, "random.truncated_normal", mean, stddev)
    sizes = new_shape(shape, "random.truncated_normal")
    x = TENSOR_OPS.truncated_normal(_state(seed), shape=sizes, dtype=wanted.name)
    return _scaled(x, stddev, mean)


def uniform(
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = None,
    seed: Any = None,
    name: Any = None,
) -> Tensor:
    """Numbers from minval to below maxval, equally likely.

    maxval: 1 by default; needed for an integer dtype. dtype: float32 by default, or an integer
    dtype. Raises ArgumentError for an empty range of integers.

    >>> x = graphnn.random.uniform((99,), 2.0, 3.0)
    >>> bool(graphnn.all((x >= 2) & (x <= 3)))
    True
    """
    if dtype is not None and is_integer(as_dtype(dtype)):
        if maxval is None:
            raise ArgumentError(
                "random.uniform",
                received="an integer dtype without maxval",
                expected="both limits",
                fix="give maxval, which is left out of the range",
            )
        return randint(shape, minval, maxval, dtype, seed)
    maxval = 1 if maxval is None else maxval
    wanted = _float(dtype, "random.uniform", minval, maxval)
    sizes = new_shape(shape, "random.uniform")
    x = TENSOR_OPS.random_uniform(_state(seed), shape=sizes, dtype=wanted.name)
    return _scaled(x, maxval - minval, minval)


def randint(
    shape: Any, minval: Any, maxval: Any, dtype: Any = None, seed: Any = None, name: Any = None
) -> Tensor:
    """Integers from minval to below maxval, equally likely; int32 by default.

    Raises ArgumentError for an empty range, or one beyond the dtype.

    >>> x = graphnn.random.randint((99,), 0, 3)
    >>> sorted({*x.tolist()})
    [0, 1, 2]
    """
    settings = {
        "shape": new_shape(shape, "random.randint"),
        "low": int(integer(minval, "minval of random.randint")),
        "high": int(integer(maxval, "maxval of random.randint")),
        "dtype": (int32 if dtype is None else as_dtype(dtype)).name,
    }
    words = _checked_state(_ops.RandomIntegers, settings, seed)
    return call(_ops.RandomIntegers, (words,), settings)  # type: ignore[no-any-return]


def _checked_state(cls: Any, settings: dict[str, Any], seed: Any) -> Tensor:
    """The state of a draw whose settings are right; a wrong call must not move the stream."""
    cls(**settings).infer(_STATE_TYPE)
    return _state(seed)


def bernoulli(
    shape: Any, p: float = 0.5, dtype: Any = "bool", seed: Any = None, name: Any = None
) -> Tensor:
    """True (or 1) with probability p, else False.

    >>> graphnn.random.bernoulli((3,), p=1.0).numpy()
    array([ True,  True,  True])
    """
    sizes = new_shape(shape, "random.bernoulli")
    return TENSOR_OPS.bernoulli(_state(seed), shape=sizes, p=float(p), dtype=as_dtype(dtype).name)  # type: ignore[no-any-return]


def shuffle(value: Any, seed: Any = None, name: Any = None, *, axis: int = 0) -> Tensor:
    """The slices along an axis in random order.

    >>> sorted(graphnn.random.shuffle([3, 1, 2]).tolist())
    [1, 2, 3]
    """
    x = convert(value)
    place = one_axis(axis, x.ndim, "random.shuffle")
    return TENSOR_OPS.shuffle(x, _state(seed), axis=place)  # type: ignore[no-any-return]


def permutation(x: Any, seed: Any = None, *, dtype: Any = "int64") -> Tensor:
    """The numbers 0 to x - 1 in random order; or a tensor's slices, as `shuffle`.

    >>> sorted(graphnn.random.permutation(3).tolist())
    [0, 1, 2]
    """
    if isinstance(x, Operand | np.ndarray | list | tuple) and convert(x).ndim:
        return shuffle(x, seed)
    size = integer(x, "random.permutation")
    return TENSOR_OPS.permutation(_state(seed), size=size, dtype=as_dtype(dtype).name)  # type: ignore[no-any-return]


def categorical(
    logits: Any, num_samples: int, dtype: Any = "int64", seed: Any = None, name: Any = None
) -> Tensor:
    """Classes drawn with the probabilities softmax(logits).

    logits: floats (batch, classes). Returns: integers (batch, num_samples). Raises ArgumentError
    for logits of another number of axes.

    >>> graphnn.random.categorical([[0.0, 99.0]], 3).numpy()
    array([[1, 1, 1]])
    """
    x = convert(logits)
    x = x if is_float(x.dtype) else cast(x, DEFAULT_FLOAT)
    if x.ndim != 2:
        raise ArgumentError(
            "random.categorical",
            received=f"logits {describe(x.dtype, x.shape)}",
            expected="two axes: batch and classes",
            fix="reshape the logits",
        )
    batch, classes = x.shape
    shape = (batch, num_samples, classes)
    u = TENSOR_OPS.random_uniform(_state(seed), shape=shape, dtype="float32")
    tiny = 2.0**-25  # half a step of u, so that the logarithm is finite
    gumbel = -TENSOR_OPS.log(-TENSOR_OPS.log(TENSOR_OPS.add(u, tiny)))
    wide = TENSOR_OPS.expand_dims(cast(x, DEFAULT_FLOAT), axes=(1,))
    found = TENSOR_OPS.argmax(TENSOR_OPS.add(wide, gumbel), axis=2)
    return cast(found, as_dtype(dtype))


def _stateless(seed: Any) -> Tensor:
    """The state for a pair of integers."""
    words = cast(convert(seed), uint32)
    if tuple(words.shape) != (2,):
        raise ArgumentError(
            "a stateless random function",
            received=f"a seed of shape {words.shape}",
            expected="two integers",
            fix="give seed=[a, b]",
        )
    return TENSOR_OPS.concat(words, constant_of(np.array([0, 0]), uint32), axis=0)  # type: ignore[no-any-return]


def stateless_uniform(
    shape: Any, seed: Any, minval: Any = 0, maxval: Any = None, dtype: Any = None
) -> Tensor:
    """Numbers from minval to below maxval, determined by the two integers of `seed`.

    >>> a = graphnn.random.stateless_uniform((2,), seed=[1, 2])
    >>> bool(graphnn.all(a == graphnn.random.stateless_uniform((2,), seed=[1, 2])))
    True
    """
    return uniform(shape, minval, maxval, dtype, seed=_Fixed(_stateless(seed)))


def stateless_normal(
    shape: Any, seed: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None
) -> Tensor:
    """Normally distributed numbers, determined by the two integers of `seed`.

    >>> graphnn.random.stateless_normal((2,), seed=[1, 2]).shape
    (2,)
    """
    return normal(shape, mean, stddev, dtype, seed=_Fixed(_stateless(seed)))


class _Fixed(Generator):
    """A generator that stands still."""

    def __init__(self, words: Tensor) -> None:
        self._words = words

    def next(self) -> Tensor:
        return self._words
