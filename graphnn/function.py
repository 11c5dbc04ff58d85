"""`@function`: Python is traced once per signature and runs as a compiled program from then on."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, overload

from graphnn.compiler.ir.graph import Graph
from graphnn.concrete import ConcreteFunction
from graphnn.retrace import explain
from graphnn.runtime.errors import hide_own_frames
from graphnn.signature import FLAGS, TensorSpec
from graphnn.traces import EAGER, Options, Traces

__all__ = [
    "ConcreteFunction",
    "Function",
    "TensorSpec",
    "function",
    "functions_run_eagerly",
    "run_functions_eagerly",
]


def run_functions_eagerly(run_eagerly: bool) -> None:
    """Make every `@function` run as plain Python, line by line, for debugging.

    >>> graphnn.run_functions_eagerly(False)
    """
    EAGER.on = bool(run_eagerly)
    FLAGS.changed()


def functions_run_eagerly() -> bool:
    """Whether `run_functions_eagerly(True)` is in force.

    >>> graphnn.functions_run_eagerly()
    False
    """
    return EAGER.on


class Inspectable:
    """What can be asked of a `@function` and of a method that is one."""

    _traces: Traces

    def get_concrete_function(self, *args: Any, **kwargs: Any) -> ConcreteFunction:
        """The trace for some arguments, made if there is none; tensors may be `TensorSpec`s.

        With an input signature no arguments are needed.
        """
        specs = self._traces.options.input_signature
        if not args and not kwargs and specs is not None:
            args = specs
        return self._traces.concrete_for(args, kwargs)[0]

    @property
    def trace_count(self) -> int:
        """How many times the function has been traced."""
        return len(self._traces.records)

    def experimental_get_tracing_count(self) -> int:
        """How many times the function has been traced."""
        return self.trace_count

    @property
    def concretes(self) -> tuple[ConcreteFunction, ...]:
        """All traces, oldest first."""
        return tuple(self._traces.concretes)

    def explain(self) -> str:
        """Each trace with the call that caused it, and the arguments that differed."""
        return explain(self._traces.options.name, self._traces.records)

    def graph(self) -> Graph:
        """The graph of the latest trace. Raises StateError before the first call."""
        return self._traces.latest().graph

    def stages(self) -> list[tuple[str, Graph]]:
        """The graph of the latest trace after each pass."""
        return self._traces.latest().stages()

    def dump(
        self,
        stage: str = "summary",
        format: str = "text",
        *,
        against: str | None = None,
        kernel: str | None = None,
        device: str | None = None,
    ) -> str:
        """What became of the latest trace, as text.

        stage: "summary", "trace", the name of a pass, "fuse", "memory", "loops", "program", "llvm",
        "optimized", "asm", for a GPU "cuda", or "all". against: an earlier stage, to see only what
        has changed since. kernel: one kernel (k0, k1, ... or a part of its name), in the form that
        `stage` names. device: "cuda" or, say, "cuda:sm_80": what the trace becomes there, for which
        no GPU is needed; by default where it runs. Raises ArgumentError for a stage, kernel, format
        or device that does not exist, and StateError before the first call.

        >>> @graphnn.function
        ... def square(x):
        ...     return x * x
        >>> square(graphnn.constant([3.0]))
        Tensor([9.], shape=(1,), dtype=float32)
        >>> print(square.dump("simplify", against="trace"))
        trace -> simplify.2: unchanged
        """
        latest = self._traces.latest()
        return latest.dump(stage, format, against=against, kernel=kernel, device=device)


class Function(Inspectable):
    """A Python function that is traced once per signature and then runs compiled.

    Made by `@function`. As a method it keeps the traces of each instance apart, for as long as the
    instance lives.
    """

    def __init__(self, python: Callable[..., Any], options: Options) -> None:
        self.python_function, self.options = python, options
        self._traces = Traces(python, options)
        self._call = self._traces.call
        self._by_owner: dict[int, tuple[Any, Traces]] = {}
        functools.update_wrapper(self, python, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._call(args, kwargs)
        except Exception as error:  # here, so that this frame alone is left in the traceback
            raise hide_own_frames(error)  # noqa: B904

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Method(self, instance)

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.options.name

    @property
    def input_signature(self) -> tuple[Any, ...] | None:
        """The input signature that was given."""
        return self.options.input_signature

    def traces_of(self, instance: Any) -> Traces:
        """The traces of one instance."""
        known = self._by_owner.get(id(instance))
        if known is not None and known[0]() is instance:
            return known[1]
        key = id(instance)
        try:
            owner: Any = weakref.ref(instance, lambda _: self._by_owner.pop(key, None))
        except TypeError:
            owner = functools.partial(_same, instance)  # cannot be referred to weakly
        traces = Traces(self.python_function, self.options, owner, method=True)
        return self._by_owner.setdefault(key, (owner, traces))[1]

    def __deepcopy__(self, memo: Any) -> Function:
        return self

    def __reduce__(self) -> Any:
        return self.python_function.__qualname__  # found again by its name in the module

    def __repr__(self) -> str:
        return f"<function {self.name}: {self.trace_count} traces>"


def _same(instance: Any) -> Any:
    return instance


class Method(Inspectable):
    """A `@function` bound to an instance, which it keeps alive."""

    __slots__ = ("__self__", "_traces", "function")

    def __init__(self, function: Function, instance: Any) -> None:
        self.function, self.__self__ = function, instance
        self._traces = function.traces_of(instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._traces.call(args, kwargs)
        except Exception as error:
            raise hide_own_frames(error)  # noqa: B904

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Method)
            and self.function is other.function
            and self.__self__ is other.__self__
        )

    def __hash__(self) -> int:
        return hash((id(self.function), id(self.__self__)))


@overload
def function(python: Callable[..., Any]) -> Function: ...


@overload
def function(
    python: None = None,
    input_signature: Sequence[Any] | None = None,
    autograph: bool = True,
    jit_compile: bool | None = None,
    reduce_retracing: bool = False,
    *,
    max_traces: int | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], Function]: ...


def function(
    python: Callable[..., Any] | None = None,
    input_signature: Sequence[Any] | None = None,
    autograph: bool = True,
    jit_compile: bool | None = None,
    reduce_retracing: bool = False,
    *,
    max_traces: int | None = None,
    name: str | None = None,
) -> Any:
    """Compile a Python function: it is traced once per signature of its arguments.

    Tensors and NumPy arrays are inputs; Python values are part of the signature. A size that has
    changed once becomes symbolic, and the next trace serves all sizes of 2 or more.

    input_signature: a `TensorSpec` for each of the first arguments, nested as they are; sizes of
    None are symbolic from the start. max_traces: raise StateError, with the difference, instead of
    tracing more often. name: for messages, by default the function's. autograph, jit_compile,
    reduce_retracing: accepted for TensorFlow code; everything is compiled and sizes are always
    generalised.

    >>> @graphnn.function
    ... def double(x):
    ...     return x * 2
    >>> double(graphnn.constant([1.0, 2.0]))
    Tensor([2. 4.], shape=(2,), dtype=float32)
    """

    def decorate(python: Callable[..., Any]) -> Function:
        if isinstance(python, Function):
            return python
        text = str(name or getattr(python, "__name__", type(python).__name__))
        specs = None if input_signature is None else tuple(input_signature)
        return Function(python, Options(text, specs, max_traces))

    return decorate if python is None else decorate(python)
