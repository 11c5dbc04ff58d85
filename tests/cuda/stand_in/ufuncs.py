"""Universal functions with CuPy's loops: the first one that takes the operands is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.cuda.stand_in.arrays import BFLOAT16, ndarray
from tests.cuda.stand_in.machine import gpu

SCATTERS = {
    "add": "ilLIQqefd",
    "subtract": "iI",
    "maximum": "ilqfdILQ",
    "minimum": "ilqfdILQ",
    "bitwise_and": "ilqILQ",
    "bitwise_or": "ilqILQ",
    "bitwise_xor": "ilqILQ",
}
KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}
WEAK = {int: 1, float: 2, complex: 3}
ALIASES = {"conj": "conjugate", "abs": "absolute"}


def dtype_of(letter: str) -> np.dtype[Any]:
    """The dtype of a letter in a loop."""
    return BFLOAT16 if letter == "W" else np.dtype(letter)


class ufunc:
    """An element-wise function. loops: such as "ff->f". function: NumPy's, by the name if None."""

    def __init__(
        self, name: str, loops: Sequence[str], function: Callable[..., Any] | None = None
    ) -> None:
        self.name = self.__name__ = name
        self.types = [loop.replace("W", "E") for loop in loops]
        pairs = [loop.split("->") for loop in loops]
        self._loops = [tuple(tuple(map(dtype_of, part)) for part in pair) for pair in pairs]
        self.nin, self.nout = len(pairs[0][0]), len(pairs[0][1])
        self._function = getattr(np, name) if function is None else function

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.name}'>"

    def __call__(
        self, *args: Any, out: Any = None, where: Any = True, dtype: Any = None,
        casting: str = "same_kind",
    ) -> Any:  # fmt: skip
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"Wrong number of arguments for {self!r}")
        ins, given = args[: self.nin], args[self.nin :] or (out if type(out) is tuple else (out,))
        for x in ins:
            if not isinstance(x, ndarray | np.generic | bool | int | float | complex):
                raise TypeError(f"Unsupported type {type(x)}")
        takes, gives = self.loop(ins, None if dtype is None else np.dtype(dtype))
        outs = [o for o in given if o is not None]
        for o, kind in zip(outs, gives, strict=False):
            if not isinstance(o, ndarray):
                raise TypeError(f"return arrays must be of cupy.ndarray, not {type(o)}")
            if not can_cast(kind, o.dtype, casting):
                raise TypeError(
                    f"output (typecode {kind.char!r}) could not be coerced to provided output "
                    f"parameter (typecode {o.dtype.char!r}) according to the casting rule "
                    f"{casting!r}"
                )
        return self._start(ins, takes, gives, outs, where)

    def loop(self, args: Sequence[Any], dtype: np.dtype[Any] | None) -> Any:
        """The dtypes that a call computes with and gives."""
        if dtype is not None:
            for takes, gives in self._loops:
                if all(g == dtype for g in gives):
                    return takes, gives
            raise TypeError(f"Wrong type ({dtype}) of arguments for cupy_{self.name}")
        kinds = [_dtype(a) for a in args]
        weak = [type(a) if type(a) in WEAK else None for a in args]
        arrays = [KINDS[k.kind] for k, w in zip(kinds, weak, strict=True) if w is None]
        scalars = [WEAK[w] for w in weak if w is not None]
        if not arrays or not scalars or max(arrays) < max(scalars):
            weak = [None] * len(weak)
        for takes, gives in self._loops:
            if all(_fits(k, t, w) for k, t, w in zip(kinds, takes, weak, strict=True)):
                return takes, gives
        raise TypeError(f"Wrong type ({tuple(kinds)}) of arguments for cupy_{self.name}")

    def _start(self, ins: Any, takes: Any, gives: Any, outs: list[ndarray], where: Any) -> Any:
        from tests.cuda.stand_in import functions

        arrays = [x for x in ins if isinstance(x, ndarray)]
        host = [x._alive() if isinstance(x, ndarray) else x for x in ins]
        mask = where._alive() if isinstance(where, ndarray) else where
        for o in outs:
            o._alive()
        shape = np.broadcast_shapes(*(np.shape(h) for h in host))
        for o in outs:
            if np.broadcast_shapes(shape, o.shape) != o.shape:
                raise ValueError(
                    f"non-broadcastable output operand with shape {o.shape} doesn't match the "
                    f"broadcast shape {shape}"
                )
        made = [ndarray(shape, g) for g in gives[len(outs) :]]
        results = [*outs, *made]

        def work() -> None:
            values = [cast_to(h, t) for h, t in zip(host, takes, strict=True)]
            with np.errstate(all="ignore"):
                found = self._compute(values, gives)
            for out, value in zip(results, found, strict=True):
                np.copyto(out._host, value, casting="unsafe", where=mask)

        with gpu.lock:
            functions.start(self.name, work, arrays, results)
        return results[0] if len(results) == 1 else tuple(results)

    def _compute(self, values: list[Any], gives: Any) -> list[Any]:
        name = ALIASES.get(self.name, self.name)
        if name in ("power", "pow") and values[0].dtype.kind in "iu":
            return [_integer_power(*values)]
        try:
            found = self._function(*values)
        except TypeError:  # no loop of NumPy for this dtype
            wide = [v.astype(np.float32) if v.dtype.kind in "?V" else v for v in values]
            found = self._function(*wide)
        results = found if isinstance(found, tuple) else (found,)
        return [np.asarray(r).astype(g, copy=False) for r, g in zip(results, gives, strict=True)]

    # ---- other ways to call it ---------------------------------------------------------------

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        """Apply in place at indices that may repeat."""
        from tests.cuda.stand_in import functions, indexing

        if self.name not in SCATTERS:
            raise NotImplementedError(f"`cupy_{self.name}.at` is not supported yet")
        if a.dtype == BFLOAT16 or a.dtype.char not in SCATTERS[self.name]:
            raise TypeError(f"cupy.{self.name}.at does not support {a.dtype} as data type")
        used: list[ndarray] = [a]
        key = indexing.host_key(indices, a.shape, used)
        value = functions.unwrap(b, used)
        host = a._alive()
        work = lambda: getattr(np, self.name).at(host, key, cast_to(value, a.dtype))  # noqa: E731
        functions.start(f"{self.name}.at", work, used, [a])

    def reduce(
        self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        name = {"add": "sum", "multiply": "prod"}.get(self.name)
        if name is None:
            raise NotImplementedError(f"`cupy_{self.name}.reduce` is not supported yet")
        return getattr(array, name)(axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        name = {"add": "cumsum", "multiply": "cumprod"}.get(self.name)
        if name is None:
            raise NotImplementedError(f"`cupy_{self.name}.accumulate` is not supported yet")
        return getattr(array, name)(axis, dtype, out)

    def outer(self, a: Any, b: Any, **kwargs: Any) -> Any:
        return self(a.reshape(a.shape + (1,) * b.ndim), b, **kwargs)


def _dtype(value: Any) -> np.dtype[Any]:
    if isinstance(value, ndarray | np.generic):
        return value.dtype
    if type(value) is int and value >= 1 << 63:
        return np.dtype(np.uint64)
    return np.dtype(type(value))


@functools.cache
def can_cast(a: np.dtype[Any], b: np.dtype[Any], casting: str = "safe") -> bool:
    return bool(np.can_cast(a, b, casting))  # type: ignore[arg-type]


@functools.cache
def _fits(given: np.dtype[Any], takes: np.dtype[Any], weak: Any) -> bool:
    if can_cast(given, takes):
        return True
    try:
        return weak is not None and np.result_type(weak(0), takes) == takes
    except TypeError:
        return False


def cast_to(value: Any, dtype: np.dtype[Any]) -> Any:
    """An operand in a loop's dtype. Raises OverflowError for a Python number that does not fit."""
    if type(value) in (int, float, complex, bool):
        return np.asarray(value, dtype)
    return np.asarray(value).astype(dtype, copy=False)


def _integer_power(x: Any, y: Any) -> Any:
    """Powers of integers; negative exponents give what is left of a fraction."""
    up = np.power(x, np.maximum(y, 0))
    odd = np.where(y & 1 == 1, x, 1)
    return np.where(y < 0, np.where(abs(x) == 1, odd, 0), up).astype(x.dtype)
