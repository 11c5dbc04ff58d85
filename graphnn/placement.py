"""Eager ops where a GPU is in use: on which device each runs, and how.

`install` puts `run` in the place of the plain NumPy call of `graphnn.apply` when the first GPU is
used. On a GPU an op runs through CuPy; where CuPy cannot, as a compiled program of that one op; and
where there is none either, on the host.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn import apply as _apply
from graphnn.build import Compiled, compile_graph
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.types import TensorType, TupleType, bfloat16, uint32
from graphnn.compiler.ops.base import Op
from graphnn.compiler.ops.call import Call
from graphnn.compiler.ops.core import HostCall, Input, Item
from graphnn.compiler.ops.random import Draw, Permutation
from graphnn.runtime import copies, devices
from graphnn.runtime.cuda import memory as cuda_memory
from graphnn.runtime.errors import GraphnnError
from graphnn.runtime.settings import settings
from graphnn.state import state
from graphnn.tensor import Tensor

Array = Any
_PROGRAMS = 512  # compiled programs of single ops that are kept
_ndarray = np.ndarray

# ---- where --------------------------------------------------------------------------------------


def backend_now() -> Any:
    """Where something is made that depends on no tensor: the device of the context, else the
    default; the host for what a Dataset's function makes."""
    if state.device is not None:
        return state.device
    return devices.host if state.draws is not None else devices.default()


def backend_for(op: Op, arrays: Sequence[Array]) -> Any:
    """Where an eager op runs."""
    if isinstance(op, HostCall) or any(a.dtype.kind == "T" for a in arrays):
        return devices.host
    if isinstance(op, Call):
        return op.program.backend
    if state.device is not None:
        return state.device
    for array in arrays:
        if isinstance(array, devices.ARRAYS):
            return devices.backend_of(array)
    made = not arrays or isinstance(op, Draw | Permutation)
    return backend_now() if made else devices.host


def place(array: Array) -> Array:
    """A new value that depends on no tensor, on the device where such values go."""
    if not devices.used or array.dtype.kind == "T":
        return array
    return devices.move(array, backend_now())


def is_trifle(array: Array) -> bool:
    """Whether a copy is not worth a line in the report: a number, or a random generator's state."""
    return not array.ndim or (array.dtype == uint32 and array.shape == (4,))


def bring(array: Array, backend: Any, what: str) -> Array:
    """An array on a device; a copy is written down. what: in words, for the report."""
    source = devices.backend_of(array)
    if source is backend:
        return array
    moved = devices.move(array, backend)
    if not is_trifle(array):
        copies.note(what, array.nbytes, source.name, backend.name)
    return moved


# ---- how ----------------------------------------------------------------------------------------


def run(op: Op, inputs: tuple[Any, ...]) -> Any:
    """The value of an eager op: arrays on its device. Stands in for `apply`'s own function."""
    arrays = [t._value for t in inputs]
    try:
        backend = backend_for(op, arrays)
    except AttributeError:  # a body without a dtype or numbers
        return _apply.run_on_host(op, inputs)
    if settings.log_placement:
        print(f"{op.name}: {backend.name}", file=sys.stderr)
    if backend is devices.host:
        if any(isinstance(a, devices.ARRAYS) for a in arrays):
            arrays = [bring(a, backend, f"an input of {op.name}") for a in arrays]
            return _apply.run_on_host(op, tuple(map(Tensor, arrays)))
        return _apply.run_on_host(op, inputs)
    if any(type(a) is not _ndarray and not isinstance(a, devices.ARRAYS) for a in arrays):
        return _apply.run_on_host(op, inputs)  # of a trace or a model: raises what fits
    with backend.scope():
        found = [bring(a, backend, f"an input of {op.name}") for a in arrays]
        result = backend.retried(_words(op, found), _on_gpu, op, found, backend)
    return tuple(_own(r, op) for r in result) if type(result) is tuple else _own(result, op)


def _words(op: Op, arrays: Sequence[Array]) -> str:
    sizes = ", ".join(f"{a.dtype.name}{list(a.shape)}" for a in arrays)
    return f"{op.name} of {sizes}" if sizes else op.name


def _own(array: Array, op: Op) -> Array:
    """A result that shares no memory with a Variable, which the next assign overwrites."""
    if devices.is_guarded(array):
        return devices.duplicate(array)
    if array.nbytes >= cuda_memory.LARGE:
        cuda_memory.note(array, f"the result of {op.name}")
    return array


_only_compiled: set[Any] = set()  # (op class, dtypes) that CuPy has refused


def _on_gpu(op: Op, arrays: list[Array], backend: Any) -> Any:
    """The result through CuPy, else through a program, else through the host."""
    key = (type(op), *(a.dtype for a in arrays))
    if not (key in _only_compiled or _is_for_programs(op, arrays)):
        try:
            result = _checked(state.quiet(op.eager, backend.xp, *arrays), backend)
            if _is_right(op, arrays, result):
                return result
            _only_compiled.add(key)
        except GraphnnError:
            raise
        except Exception as error:
            if backend.is_exhausted(error):
                raise
            if not isinstance(op, Call):
                op.infer(*map(_type, arrays))  # raises what the user did wrong
            _only_compiled.add(key)
    if isinstance(op, Call):
        return op.eager(backend.xp, *arrays)
    return _compiled(op, arrays, backend)


def _is_for_programs(op: Op, arrays: Sequence[Array]) -> bool:
    """What CuPy does not do well: bfloat16; random numbers, for which it needs many kernels;
    scattering, where it leaves open which of two values for one place wins; and products, whose
    precision (TF32) and algorithm are to be those of compiled functions."""
    if isinstance(op, Draw) or op.fusion in ("scatter", "library"):
        return True
    short = any(a.dtype == bfloat16 for a in arrays) or getattr(op, "dtype", "") == "bfloat16"
    return short and op.fusion != "view" and not isinstance(op, Call)


def _is_right(op: Op, arrays: Sequence[Array], result: Any) -> bool:
    """Whether the result has its dtype: some of CuPy's functions silently widen bfloat16."""
    if not any(a.dtype == bfloat16 for a in arrays) or isinstance(op, Call):
        return True
    type = op.infer(*map(_type, arrays))
    return bool(type.dtype == result.dtype) if isinstance(type, TensorType) else True


def _checked(result: Any, backend: Any) -> Any:
    """Results as CuPy arrays, which a few rules give as numbers or NumPy arrays."""
    if type(result) is tuple:
        return tuple(_checked(r, backend) for r in result)
    if isinstance(result, devices.ARRAYS):
        return result
    return backend.upload(np.asarray(result))


def _type(array: Array) -> TensorType:
    return TensorType(tuple(array.shape), array.dtype)


_programs: OrderedDict[Any, Compiled | None] = OrderedDict()


def _compiled(op: Op, arrays: list[Array], backend: Any) -> Any:
    key = (op, tuple(map(_type, arrays)), backend, settings.tf32)  # names change
    if key in _programs:
        _programs.move_to_end(key)
    else:
        _programs[key] = _program(op, arrays, backend)
        if len(_programs) > _PROGRAMS:
            _programs.popitem(last=False)
    program = _programs[key]
    if program is None:
        return _through_host(op, arrays, backend)
    results = program.run([devices.dense(a) for a in arrays])
    if backend.driver.pending:
        program.wait()  # so that eager code fails at its own line
    results = [devices.move(r, backend) for r in results]
    return tuple(results) if isinstance(op.infer(*map(_type, arrays)), tuple) else results[0]


def _program(op: Op, arrays: Sequence[Array], backend: Any) -> Compiled | None:
    """A graph of the one op, compiled; None where its result's shape depends on values."""
    nodes = tuple(Node(Input(label=f"x{i}"), (), _type(a)) for i, a in enumerate(arrays))
    try:
        type = op.infer(*(n.tensor for n in nodes))
    except TypeError:
        return None
    if isinstance(type, tuple):
        whole = Node(op, nodes, TupleType(type))
        outputs = tuple(Node(Item(index=i), (whole,), t) for i, t in enumerate(type))
    else:
        outputs = (Node(op, nodes, type),)
    effects = outputs if op.effect else ()
    return compile_for(Graph(op.name, nodes, outputs, (), effects), backend)


def compile_for(graph: Graph, backend: Any, homes: Any = None) -> Compiled:
    """A graph compiled for a device. homes: see `compile_graph`."""
    if backend is devices.host:
        return compile_graph(graph, homes=homes)
    return compile_graph(graph, device=backend.name, homes=homes)


def _through_host(op: Op, arrays: Sequence[Array], backend: Any) -> Any:
    """The last way out, reported: values to the host, and the result back."""
    values = [
        bring(a, devices.host, f"an input of {op.name}, which runs on the host") for a in arrays
    ]
    result = state.quiet(op.eager, np, *values)
    results = result if type(result) is tuple else (result,)
    what = f"the result of {op.name}, which runs on the host"
    moved = tuple(bring(np.asarray(r), backend, what) for r in results)
    return moved if type(result) is tuple else moved[0]


def install(on: bool) -> None:
    """Let eager ops ask where arrays are, or stop that."""
    _apply.set_runner(run if on else _apply.run_on_host)
    _programs.clear()
    _only_compiled.clear()


devices.on_change.append(install)
