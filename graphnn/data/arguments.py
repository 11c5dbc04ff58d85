"""Checks of the arguments of Dataset's methods: each gives the value, or raises ArgumentError."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.types import DType, as_dtype, is_float, is_integer
from graphnn.data.elements import map_leaves, zip_leaves
from graphnn.data.stage import INFINITE, Stage
from graphnn.data.threads import AUTOTUNE, cores
from graphnn.runtime.errors import ArgumentError, GraphnnError
from graphnn.signature import TensorSpec
from graphnn.tensor import Operand

__all__ = ["AUTOTUNE"]

_PREFETCHED = 2


class LengthError(GraphnnError, TypeError):
    """The length of a dataset that is infinite or not known: a TypeError, as `len` raises."""


def integer(value: Any, subject: str, name: str) -> int:
    """A Python integer from anything that is one."""
    if not isinstance(value, bool):
        try:
            return int(value.__index__())
        except (AttributeError, TypeError):
            pass
    raise ArgumentError(
        subject,
        received=f"{name}={value!r}",
        expected="an integer",
        fix="give a Python integer, e.g. 32",
    )


def positive(value: Any, subject: str, name: str) -> int:
    """An integer of 1 or more."""
    number = integer(value, subject, name)
    if number > 0:
        return number
    raise ArgumentError(subject, received=f"{name}={number}", expected="an integer of 1 or more")


def below(value: Any, limit: int, subject: str, name: str) -> int:
    """An integer from 0 to below a limit."""
    number = integer(value, subject, name)
    if 0 <= number < limit:
        return number
    raise ArgumentError(
        subject, received=f"{name}={number}", expected=f"an integer from 0 to {limit - 1}"
    )


def count(value: Any, subject: str) -> int:
    """An integer of 0 or more, or -1."""
    number = integer(value, subject, "count")
    if number >= -1:
        return number
    raise ArgumentError(
        subject, received=f"count={number}", expected="0 or more elements, or -1 for all"
    )


def workers(value: Any, subject: str) -> int:
    """Number of threads: 0 for None, one per core for AUTOTUNE."""
    if value is None:
        return 0
    number = integer(value, subject, "num_parallel_calls")
    return cores() if number == AUTOTUNE else positive(number, subject, "num_parallel_calls")


def ahead(value: Any) -> int:
    """Number of elements to prefetch."""
    if value is None:
        return _PREFETCHED
    number = integer(value, "Dataset.prefetch", "buffer_size")
    if number == AUTOTUNE:
        return _PREFETCHED
    if number >= 0:
        return number
    raise ArgumentError(
        "Dataset.prefetch",
        received=f"buffer_size={number}",
        expected="0 or more elements, or AUTOTUNE",
    )


def dtype(value: Any) -> DType:
    """The dtype of numbers: integer or float."""
    result = as_dtype(value)
    if is_integer(result) or is_float(result):
        return result
    raise ArgumentError(
        "Dataset.range", received=f"output_type={result.name}", expected="a dtype of numbers"
    )


def stages(datasets: Any) -> Any:
    """The stages of a dataset or of a structure of datasets; a list counts as a tuple."""
    datasets = tuple(datasets) if isinstance(datasets, list) else datasets

    def stage_of(dataset: Any) -> Stage:
        stage = getattr(dataset, "_stage", None)
        if isinstance(stage, Stage):
            return stage
        raise ArgumentError(
            "a Dataset made of several",
            received=f"a {type(dataset).__name__}",
            expected="Datasets",
            fix="wrap arrays with Dataset.from_tensor_slices",
        )

    return map_leaves(stage_of, datasets)


def signature(specs: Any, types: Any, shapes: Any) -> Any:
    """The specs of a generator's elements from one of the two forms, or None."""
    if specs is not None:
        return map_leaves(_spec, specs)
    if types is None:
        return None
    if shapes is None:
        raise ArgumentError(
            "Dataset.from_generator",
            received="output_types without output_shapes",
            expected="both, or output_signature",
            fix="give output_signature=TensorSpec(shape, dtype)",
        )
    if not isinstance(types, tuple | dict):
        return TensorSpec(tuple(shapes), types)
    boxed = map_leaves(_Shape, _as_leaves(types, shapes))
    return zip_leaves(lambda kind, shape: TensorSpec(tuple(shape.sizes), kind), types, boxed)


class _Shape:
    """A shape as a leaf: as a tuple it would be walked into."""

    def __init__(self, sizes: Any) -> None:
        self.sizes = sizes


def _as_leaves(types: Any, shapes: Any) -> Any:
    if isinstance(types, dict):
        return {key: _as_leaves(value, shapes[key]) for key, value in types.items()}
    if isinstance(types, tuple):
        return tuple(_as_leaves(t, s) for t, s in zip(types, shapes, strict=True))
    return list(shapes)


def _spec(value: Any) -> TensorSpec:
    if isinstance(value, TensorSpec):
        return value
    if isinstance(value, Operand):
        return TensorSpec.from_tensor(value)
    raise ArgumentError(
        "Dataset.from_generator",
        received=f"output_signature with a {type(value).__name__}",
        expected="a structure of TensorSpecs",
        fix="give e.g. (TensorSpec((None, 3)), TensorSpec((), 'int32'))",
    )


def no_length(stage: Stage, size: int) -> LengthError:
    """Why a dataset has no length."""
    endless = size == INFINITE
    return LengthError(
        "len(dataset)",
        received=f"the dataset {stage}",
        expected="a number of elements that is known and finite",
        fix="use take(n)" if endless else "count while iterating",
    )
