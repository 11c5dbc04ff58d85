"""The functions of the namespace `cupy`: NumPy's on the device's memory, as far as CuPy has them.

What may be called, with which parameters and on which dtypes is read from `names.txt`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.cuda.stand_in import memory
from tests.cuda.stand_in.arrays import BFLOAT16, Capsule, ndarray, supported
from tests.cuda.stand_in.machine import Fault, gpu

# Functions whose result may be a view of their first argument.
VIEWS = frozenset(
    "ascontiguousarray asfortranarray atleast_1d atleast_2d atleast_3d broadcast_arrays "
    "broadcast_to diagonal expand_dims fliplr flip flipud imag matrix_transpose moveaxis "
    "permute_dims ravel real reshape rollaxis rot90 split array_split hsplit vsplit dsplit squeeze "
    "swapaxes transpose".split()
)
# Functions that CuPy waits in, since the shape of the result depends on values.
WAITING = frozenset(
    "argwhere bincount compress extract flatnonzero histogram intersect1d isin nonzero setdiff1d "
    "trim_zeros union1d unique unique_all unique_counts unique_inverse unique_values".split()
)
# Functions of sizes, which make new arrays.
CREATION = frozenset(
    "arange blackman empty eye full hamming hanning identity indices linspace logspace ones tri "
    "tril_indices triu_indices zeros empty_like full_like ones_like zeros_like".split()
)
# Functions that tell something without the device.
FACTS = frozenset(
    "broadcast_shapes can_cast finfo iinfo isscalar issubdtype may_share_memory ndim promote_types "
    "result_type shape shares_memory size iscomplexobj isrealobj isdtype".split()
)
# Other functions that are NumPy's on the device.
PLAIN = frozenset(
    "all allclose amax amin any append apply_along_axis argmax argmin argpartition argsort around "
    "array_equal array_equiv average choose clip column_stack concat concatenate convolve copy "
    "copyto correlate count_nonzero cross cumprod cumsum delete diag diagflat diff digitize dot "
    "dstack einsum fill_diagonal gradient hstack inner interp isclose isneginf isposinf kron "
    "lexsort max mean median meshgrid min nan_to_num nanargmax nanargmin nanmax nanmean nanmin "
    "nanprod nanstd nansum nanvar outer packbits pad partition percentile place prod ptp put "
    "put_along_axis putmask quantile repeat resize roll round searchsorted select sort stack std "
    "sum take take_along_axis tensordot tile trace tril triu unpackbits unravel_index var vdot "
    "vstack".split()
)
# Functions with loops for bfloat16, by way of float32.
SHORT = (
    VIEWS
    | CREATION
    | FACTS
    | frozenset(
        (
            "all any amax amin astype argmax argmin argsort clip concat concatenate copy copyto "
            "cumsum cumprod diag dot matmul max mean min nansum nanmax nanmin pad prod ptp repeat "
            "roll sort stack sum take take_along_axis tensordot tile tril triu vstack hstack "
            "put_along_axis column_stack append delete flip array_equal count_nonzero "
            "searchsorted fill_diagonal inner outer trace einsum kron vdot dstack nan_to_num"
        ).split()
    )
)
Loop = tuple[tuple[np.dtype[Any], ...], tuple[np.dtype[Any], ...]]


@functools.cache
def names() -> dict[str, dict[str, str]]:
    """What the real CuPy has: a kind by name, by module or class."""
    found: dict[str, dict[str, str]] = {}
    text = Path(__file__).with_name("names.txt").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        owner, name, *kind = line.split(" ", 2)
        found.setdefault(owner, {})[name] = kind[0] if kind else ""
    return found


# ---- unwrapping and wrapping ---------------------------------------------------------------------


def unwrap(value: Any, used: list[ndarray]) -> Any:
    """A value with the host's views of its arrays. Raises TypeError for NumPy's arrays."""
    if isinstance(value, ndarray):
        used.append(value)
        return value._alive()
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if type(value) in (list, tuple):
        return type(value)(unwrap(v, used) for v in value)
    return value


def wrap(result: Any, used: Sequence[ndarray]) -> Any:
    """A NumPy result as one on the device: an argument, a view of one, or new memory."""
    if isinstance(result, np.ndarray | np.generic):
        for array in used:
            if result is array._host:
                return array
        for array in used:
            if isinstance(result, np.ndarray) and np.may_share_memory(result, array._host):
                return ndarray._made(result, array)
        return _new(result)
    if isinstance(result, tuple | list):
        parts = [wrap(r, used) for r in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result


def _new(result: Any) -> ndarray:
    own = ndarray(np.shape(result), result.dtype)
    own._host[...] = result
    return own


def deferred() -> bool:
    """Whether work of the current stream is not run at once."""
    return gpu.deferred(_stream())


def _stream() -> int:
    from tests.cuda.stand_in.cuda import get_current_stream

    return int(get_current_stream().ptr)


def start(
    name: str, work: Callable[[], None], reads: Sequence[ndarray], writes: Sequence[ndarray] = ()
) -> None:
    """Start a kernel of CuPy on the current stream."""
    spans = [s for a in (*reads, *writes) for s in a._span()]
    gpu.kernel(f"cupy.{name}", work, spans, _stream())


def apply(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function of NumPy on arrays of the device."""
    used: list[ndarray] = []
    host = [unwrap(a, used) for a in args]
    named = {k: unwrap(v, used) for k, v in kwargs.items()}
    _short(name, used)
    if name in WAITING:
        gpu.wait_queue(gpu.queue(_stream()), f"cupy.{name}")
    elif deferred() and name not in FACTS:
        return _later(name, function, (host, named), used)
    with gpu.lock, np.errstate(all="ignore"):
        gpu.launches.append(f"cupy.{name}")
        return wrap(call(function, host, named), used)


def _later(name: str, function: Callable[..., Any], given: Any, used: list[ndarray]) -> Any:
    """Start a function whose result is known by its shape and dtype only."""
    host, named = given
    if name in VIEWS:
        result = call(function, host, named)
        if all(_shares(r, used) for r in _flat(result)):
            return wrap(result, used)
    stand: dict[int, Any] = {id(a._host): np.ones(a.shape, a.dtype) for a in used}
    with np.errstate(all="ignore"):
        shape = call(function, *_mapped((host, named), stand))
    back = {id(stand[id(a._host)]): a for a in used}
    outs = [back[id(r)] if id(r) in back else ndarray(np.shape(r), r.dtype) for r in _flat(shape)]

    def work() -> None:
        with np.errstate(all="ignore"):
            results = _flat(call(function, host, named))
        for out, result in zip(outs, results, strict=True):
            if result is not out._host:
                out._host[...] = result

    start(name, work, used, outs)
    rest = iter(outs)
    return _rebuilt(shape, lambda: next(rest))


def _flat(result: Any) -> list[Any]:
    if isinstance(result, tuple | list):
        return [x for r in result for x in _flat(r)]
    return [result] if isinstance(result, np.ndarray | np.generic) else []


def _rebuilt(result: Any, fresh: Callable[[], Any]) -> Any:
    if isinstance(result, tuple | list):
        return type(result)(_rebuilt(r, fresh) for r in result)
    return fresh() if isinstance(result, np.ndarray | np.generic) else result


def _shares(result: Any, used: Sequence[ndarray]) -> bool:
    return any(np.may_share_memory(result, a._host) for a in used)


def _mapped(value: Any, stand: dict[int, Any]) -> Any:
    if isinstance(value, np.ndarray):
        return stand[id(value)]
    if isinstance(value, dict):
        return {k: _mapped(v, stand) for k, v in value.items()}
    return type(value)(_mapped(v, stand) for v in value) if type(value) in (list, tuple) else value


def call(function: Callable[..., Any], host: Any, named: dict[str, Any]) -> Any:
    """NumPy's result; sums and products of bfloat16 go through float32, as on the device."""
    arrays = _flat([host, list(named.values())])
    if function not in _SUMS or not any(a.dtype == BFLOAT16 for a in arrays):
        return function(*host, **named)
    wide = {id(a): a.astype(np.float32) if a.dtype == BFLOAT16 else a for a in arrays}
    result = function(*_mapped(host, wide), **_mapped(named, wide))
    return result.astype(BFLOAT16) if result.dtype == np.float32 else result


_SUMS = frozenset((np.sum, np.prod, np.mean, np.dot, np.matmul, np.tensordot, np.einsum, np.nansum,
                   np.cumsum, np.cumprod, np.inner, np.outer, np.trace, np.vdot,
                   np.kron))  # fmt: skip


def _short(name: str, used: Sequence[ndarray]) -> None:
    if name not in SHORT and any(a.dtype == BFLOAT16 for a in used):
        raise TypeError(f"Wrong type (bfloat16) of arguments for cupy_{name}")


# ---- functions -----------------------------------------------------------------------------------


def checked(name: str, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with CuPy's parameters. kind: the line of `names.txt`."""
    given = kind.removeprefix("function").strip("()")
    words = given.split(",") if given else []
    positional = [w.rstrip("=") for w in words if not w.startswith("*")]
    known = {w.strip("*=") for w in words}
    anything = "*" in words or not given

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not anything and len(args) > len(positional):
            raise TypeError(
                f"{name}() takes {len(positional)} positional arguments, not {len(args)}"
            )
        for key in kwargs:
            if not anything and key not in known:
                raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
        return function(*args, **kwargs)

    wrapped.__name__ = wrapped.__qualname__ = name
    return wrapped


def plain(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function on arrays of the device, which the first argument must be."""

    def run(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else None
        if name not in CREATION | FACTS and isinstance(first, bool | int | float | np.generic):
            raise TypeError(f"Unsupported type {type(first)} for cupy.{name}")
        if name in CREATION and kwargs.get("dtype") is not None:
            supported(kwargs["dtype"])
        result = apply(name, function, args, kwargs)
        return _new(np.asarray(result)) if type(result) is bool and name not in FACTS else result

    return run


def _by_interface(obj: Any) -> ndarray:
    """Another library's array, whose memory is shared after a wait for its stream."""
    found = obj.__cuda_array_interface__
    dtype = np.dtype(found["typestr"])
    size = math.prod(found["shape"]) * dtype.itemsize
    from tests.cuda.stand_in.cuda import get_current_stream

    get_current_stream().synchronize()
    mem = memory.UnownedMemory(found["data"][0], size, obj)
    return ndarray(found["shape"], dtype, memory.MemoryPointer(mem, 0), found["strides"])


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False,
    ndmin: int = 0, *, blocking: bool = False,
) -> ndarray:  # fmt: skip
    """An array on the device from anything; the host's memory is read at once."""
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        obj = _by_interface(obj)
    if isinstance(obj, ndarray):
        made = cast(obj, obj.dtype if dtype is None else dtype, bool(copy))
        dense = made._host.flags.c_contiguous or order != "C"
        made = made if dense else apply("copy", np.copy, (made,), {})
        return made if made.ndim >= ndmin else made.reshape((1,) * (ndmin - made.ndim) + made.shape)
    if type(obj) in (list, tuple) and obj and isinstance(obj[0], ndarray | list | tuple):
        flat = _nested(obj)
        if any(isinstance(o, ndarray) for o in flat):
            parts = [array(o, dtype) for o in obj]
            joined = lookup("stack")(parts)
            return joined if dtype is None else cast(joined, dtype, False)
    host = np.array(obj, dtype=dtype, ndmin=ndmin)
    supported(host.dtype)
    if host.ndim and not host.flags.c_contiguous:
        host = np.ascontiguousarray(host)
    own = ndarray(host.shape, host.dtype)
    if not host.ndim:
        value = host[()]
        start("fill", lambda: own._host.__setitem__(..., value), [], [own])
    elif host.nbytes:
        own.data.copy_from_host_async(host.ctypes.data, host.nbytes)
    if blocking:
        gpu.wait_queue(gpu.queue(_stream()), "cupy.array")
    return own


def _nested(obj: Any) -> list[Any]:
    return [x for o in obj for x in _nested(o)] if type(obj) in (list, tuple) else [obj]


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    return array(a, dtype, bool(copy), order or "K", blocking=blocking)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    made = array(a, dtype, False, "C")
    return made if made.ndim else made.reshape((1,))


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> Any:
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return np.asarray(a, order=order)  # type: ignore[call-overload]


def cast(a: ndarray, dtype: Any, copy: bool = True) -> ndarray:
    """`astype`: floats beyond an integer's range become its ends, as the device converts them."""
    dtype = supported(dtype)
    if a.dtype == dtype and not copy:
        a._alive()
        return a

    def convert(host: Any) -> Any:
        floating = host.dtype.kind == "f" or host.dtype == BFLOAT16
        if not floating or dtype.kind not in "iu" or dtype.itemsize < 4:
            return host.astype(dtype)
        info, wide = np.iinfo(dtype), host.astype(np.float64)
        inside = (wide > float(info.min)) & (wide < float(info.max))
        ends = np.where(wide >= float(info.max), info.max, np.where(wide != wide, 0, info.min))
        return np.where(inside, np.where(inside, wide, 0).astype(dtype), ends).astype(dtype)

    return apply("astype", convert, (a,), {})  # type: ignore[no-any-return]


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """Elements of x or y."""
    if x is None and y is None:
        return lookup("nonzero")(condition)
    if x is None or y is None:
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if isinstance(condition, ndarray):
        condition = condition.astype("?", copy=False)
    elif not isinstance(condition, np.generic):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    return _where(condition, x, y)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, float if dtype is None else dtype, order=order)


def empty_like(
    prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
) -> ndarray:
    given = prototype.shape if shape is None else shape
    return ndarray(given, prototype.dtype if dtype is None else dtype)


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> ndarray:
    """An array that shares memory with another library's on this device."""
    kind, _ = array.__dlpack_device__()
    if kind == 1:
        return asarray(np.from_dlpack(array))
    found = array.__dlpack__()
    if not isinstance(found, Capsule):
        raise Fault(f"{type(array)} gives {type(found)} by DLPack")
    return found.array.view()


def get_array_module(*args: Any) -> Any:
    """NumPy or this package."""
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else np


@functools.cache
def lookup(name: str) -> Any:
    """The public function with a name, or None where CuPy has none or the emulation lacks it."""
    from tests.cuda.stand_in.ufuncs import ufunc

    kind = names()["cupy"].get(name, "")
    if kind.startswith("ufunc"):
        return ufunc(name, kind.split()[1:])
    own = {f.__name__: f for f in (array, asarray, ascontiguousarray, asnumpy, where, empty,
                                   empty_like, from_dlpack, get_array_module)}  # fmt: skip
    own["asanyarray"] = asarray
    if name in own:
        return checked(name, kind, own[name])
    known = VIEWS | WAITING | CREATION | FACTS | PLAIN
    if name == "matmul":
        return plain(name, np.matmul)
    if not kind.startswith("function") or name not in known or not hasattr(np, name):
        return None
    if name in ("take", "put"):
        return checked(name, kind, plain(name, functools.partial(getattr(np, name), mode="wrap")))
    return checked(name, kind, plain(name, getattr(np, name)))


def _where(*args: Any) -> Any:
    from tests.cuda.stand_in.ufuncs import ufunc

    loops = names()["cupy"]["where.loops"].split()[1:]
    return ufunc("where", loops, np.where)(*args)


SPECIAL: dict[str, Callable[[Any], Any]] = {
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]),
    "expit": lambda x: 1 / (1 + np.exp(-x)),
    "log1p": np.log1p,
    "expm1": np.expm1,
    "xlogy": lambda x, y: np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, y))),  # type: ignore
}


def special(name: str) -> Any:
    """A function of `cupyx.scipy.special`, or None."""
    from graphnn.runtime import xp
    from tests.cuda.stand_in.ufuncs import ufunc

    own = SPECIAL | {"erfinv": functools.partial(xp.erfinv, np), "gammaln": _gammaln,
                     "digamma": functools.partial(xp.digamma, np)}  # fmt: skip
    kind = names()["cupyx.scipy.special"].get(name, "")
    if name not in own or not kind.startswith("ufunc"):
        return None
    return ufunc(name, kind.split()[1:], own[name])


def _gammaln(x: Any) -> Any:
    def one(v: float) -> float:
        pole = v <= 0 and v == math.floor(v)
        return v if math.isnan(v) else math.inf if pole or math.isinf(v) else math.lgamma(v)

    return np.vectorize(one, otypes=[np.float64])(x)


def linalg(name: str) -> Any:
    """A function of `cupy.linalg`, or None. Failures give NaN, as CuPy does by default."""
    kind = names()["cupy.linalg"].get(name, "")
    function = getattr(np.linalg, name, None)
    if function is None or not kind.startswith("function"):
        return None

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except np.linalg.LinAlgError:
            return np.full_like(args[0], np.nan)

    return checked(name, kind, plain(f"linalg.{name}", run))
