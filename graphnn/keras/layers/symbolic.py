"""Symbolic tensors: what layers are called on to describe a model before there are data."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from graphnn import tree
from graphnn.compiler.ir.sizes import Size, symbol, symbols_of
from graphnn.compiler.ir.types import DType, TensorType
from graphnn.compiler.trace import Trace
from graphnn.keras.layers.context import outside
from graphnn.keras.masks import mask_of, set_mask
from graphnn.runtime.errors import ShapeError, StateError, TraceError
from graphnn.state import mode
from graphnn.strings import dtype_name
from graphnn.tensor import Shape, Symbolic, Tensor, Traced

R = TypeVar("R")
_numbers = itertools.count()
_recorders: list[Callable[..., Any]] = []  # how an op on symbolic tensors becomes a layer


def set_recorder(record: Callable[[Any, Sequence[Any]], Any]) -> None:
    """Say what makes a layer of an op: `record(op, inputs)` gives its symbolic outputs."""
    _recorders[:] = [record]


class _Body(Symbolic):
    """The body of all symbolic tensors."""

    __slots__ = ()

    def record(self, op: Any, inputs: Sequence[Any]) -> Any:
        return _recorders[0](op, inputs)


class OpenSize(Size):
    """A size that may vary: it equals None and prints as None, as in Keras, but it can be computed
    with: `x.shape[0] * 2`."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or Size.__eq__(self, other)

    __hash__ = Size.__hash__

    def __repr__(self) -> str:
        return "None"


class SymbolicShape(Shape):
    """Sizes of a symbolic tensor: ints, and OpenSize for those that may vary."""

    __slots__ = ()

    def __new__(cls, sizes: Sequence[Any]) -> SymbolicShape:
        return super().__new__(
            cls, (OpenSize(s.terms) if isinstance(s, Size) else s for s in sizes)
        )

    def plain(self) -> tuple[int | None, ...]:
        """The sizes with None for those that may vary."""
        return tuple(None if isinstance(s, Size) else s for s in self)


class KerasTensor(Tensor):
    """Stands for the data at one place of a model: it has a shape and a dtype, but no numbers.

    Made by `keras.Input` and by calling layers on such tensors. Layers, models, graphnn's functions
    and Python's operators take it and give further ones; `keras.Model(inputs, outputs)` makes a
    model of what lies between. What asks for numbers raises TraceError.

    >>> x = graphnn.keras.Input(shape=(3,), name="x")
    >>> graphnn.keras.layers.Dense(2)(x) * 2.0
    <KerasTensor shape=(None, 2), dtype=float32>
    """

    __slots__ = ("index", "mask_type", "name", "sizes", "source")

    mask_type: TensorType | None  # of the mask that the data will have here

    def __init__(
        self, sizes: Sequence[Any], dtype: DType, source: Call, index: int, name: str | None = None
    ) -> None:
        super().__init__(_Body(dtype))
        self.sizes = SymbolicShape(sizes)
        self.source, self.index, self.mask_type = source, index, None
        self.name = name or f"keras_tensor_{next(_numbers)}"

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return self.sizes

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.sizes)

    @property
    def type(self) -> TensorType:
        """Shape and dtype."""
        return TensorType(tuple(self.sizes), self.dtype)

    @property
    def _keras_history(self) -> tuple[Any, int, int]:
        """The layer that gives it, the number of that call of the layer, and of the output."""
        return self.source.layer, self.source.number, self.index

    def _array(self, what: str) -> NoReturn:
        raise TraceError(
            what,
            received=f"a symbolic tensor {self!r}",
            expected="a tensor with numbers",
            fix="call the model on data, or do it in the call method of a layer",
        )

    def __repr__(self) -> str:
        head = f"<KerasTensor shape={self.sizes}, dtype={dtype_name(self.dtype)}"
        return head + ("" if self.name.startswith("keras_tensor") else f", name={self.name}") + ">"

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasTensor:
        # The copy is known before the calls around it are copied, which hold it in turn.
        made = memo[id(self)] = _blank()
        made._value, made.sizes = _Body(self.dtype), self.sizes
        made.index, made.name, made.mask_type = self.index, self.name, self.mask_type
        made.source = copy.deepcopy(self.source, memo)
        return made

    def __reduce__(self) -> Any:
        sizes = tuple(self.sizes)
        state = (sizes, self.dtype, self.source, self.index, self.name, self.mask_type)
        return _blank, (), state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        sizes, dtype, self.source, self.index, self.name, self.mask_type = state
        self._value, self.sizes = _Body(dtype), SymbolicShape(sizes)


def _blank() -> KerasTensor:
    return KerasTensor.__new__(KerasTensor)


class Call:
    """One call of a layer on symbolic tensors.

    args, kwargs: as given, symbolic tensors in place. inputs: the symbolic ones among them.
    outputs: the symbolic results; `structure` is how they are nested.
    """

    def __init__(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.layer, self.args, self.kwargs = layer, args, kwargs
        self.inputs = symbolic_leaves((args, kwargs))
        self.outputs: list[KerasTensor] = []
        self.structure: Any = None
        layer._calls.append(self)

    @property
    def number(self) -> int:
        """How many calls of the layer came before."""
        return next(i for i, call in enumerate(self.layer._calls) if call is self)

    def finish(self, structure: Any) -> Any:
        """Take the results, given as tensors of any kind, and give them as symbolic tensors."""
        for leaf in tree.flatten(structure):
            if not isinstance(leaf, Tensor):
                continue
            tensor = KerasTensor(leaf.shape, leaf.dtype, self, len(self.outputs))
            mask = mask_of(leaf)
            if mask is not None:
                tensor.mask_type = TensorType(tuple(mask.shape), mask.dtype)
            self.outputs.append(tensor)
        rest = iter(self.outputs)
        self.structure = _mapped(
            lambda leaf: next(rest) if isinstance(leaf, Tensor) else leaf, structure
        )
        return self.structure

    def filled(self, values: dict[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with values, by id, in place of the symbolic tensors."""
        return filled(self.args, self.kwargs, values)


def filled(
    args: tuple[Any, ...], kwargs: dict[str, Any], values: dict[int, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with values, by id, in place of symbolic tensors."""

    def value_of(leaf: Any) -> Any:
        return values[id(leaf)] if isinstance(leaf, KerasTensor) else leaf

    real = tuple(_mapped(value_of, arg) for arg in args)
    return real, {k: _mapped(value_of, v) for k, v in kwargs.items()}


def _mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    if not tree.is_nested(structure):
        return function(structure)
    return tree.map_structure(function, structure)


def symbolic_leaves(structure: Any) -> list[KerasTensor]:
    """The symbolic tensors in a structure, left to right."""
    return [leaf for leaf in tree.flatten(structure) if isinstance(leaf, KerasTensor)]


def has_symbolic(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one of the arguments is, or holds, a symbolic tensor."""
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind is KerasTensor:
            return True
        if kind is not Tensor and tree.is_nested(value) and symbolic_leaves(value):
            return True
    return False


def input_sizes(shape: Sequence[int | None], name: str) -> tuple[Any, ...]:
    """A shape of the input with a name, with a symbol for each None; the batch axis has the same
    one in all inputs."""
    names = ("batch", *(f"n{axis}@{name}" for axis in range(1, len(shape))))
    return tuple(symbol(n) if s is None else s for n, s in zip(names, shape, strict=False))


def merged(types: Sequence[TensorType]) -> list[TensorType]:
    """Types in which the same axis of all inputs has one symbol: what ops that need equal sizes
    take on trust while a model is made. Each run computes with the sizes of its data."""
    names = symbols_of([s for t in types for s in t.shape if isinstance(s, Size)])
    return [t.bind({name: symbol(name.partition("@")[0]) for name in names}) for t in types]


def with_trusted_sizes(run: Callable[[list[TensorType]], R], types: list[TensorType]) -> R:
    """`run(types)`; where it finds sizes of several inputs that differ, with `merged` types.

    Raises what the first attempt raised if the second fails too.
    """
    try:
        return run(types)
    except (ShapeError, TraceError):
        again = merged(types)
        if again == types:
            raise
        try:
            return run(again)
        except (ShapeError, TraceError):
            pass
        raise


def run_abstractly(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a layer gives, as tensors of which only shape and dtype may be asked; builds it."""
    symbolic = symbolic_leaves((args, kwargs))
    masked = [i for i, tensor in enumerate(symbolic) if tensor.mask_type is not None]
    masks = [tensor.mask_type for tensor in symbolic if tensor.mask_type is not None]

    def run(types: list[TensorType]) -> Any:
        trace = Trace(f"the shape of {layer.name}")
        made = [Tensor(Traced(trace.argument(f"x{i}", t), trace)) for i, t in enumerate(types)]
        for place, mask in zip(masked, made[len(symbolic) :], strict=True):
            set_mask(made[place], mask)
        values = dict(zip(map(id, symbolic), made, strict=False))
        real, named = filled(args, kwargs, values)
        try:
            with mode(trace), outside():
                return layer(*real, **named)
        finally:
            trace.closed = True
            layer._clear_losses()

    return with_trusted_sizes(run, [*(tensor.type for tensor in symbolic), *masks])


def call_symbolically(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Write down a call of a layer; gives symbolic tensors nested like the layer's outputs.

    Raises what the layer's own code raises for inputs of these shapes.
    """
    outputs = run_abstractly(layer, args, kwargs)
    return Call(layer, args, kwargs).finish(outputs)


class FromCalls:
    """An attribute of layers made of their first call on symbolic tensors: `layer.output`.

    A layer may have an attribute of its own with the name, which hides it.
    """

    def __init__(self, read: Callable[[Call], Any]) -> None:
        self._read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        if not layer._calls:
            raise NotCalledError(
                f"{self._name} of {layer.name}",
                received="a layer that was not called on symbolic tensors",
                expected="a layer of a Sequential or functional model that has been built",
                fix="call it on keras.Input(...), or begin the model with an Input",
            )
        return self._read(layer._calls[0])


class Shown:
    """A property that a subclass of users may hide by an attribute of its own: `self.output = ...`
    is a layer's business."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    def __get__(self, owner: Any, cls: type) -> Any:
        return self if owner is None else self._read(owner)


class NotCalledError(StateError, AttributeError):
    """A layer has no symbolic inputs and outputs yet."""


def single(items: Sequence[Any]) -> Any:
    """The one item of a list, or the list."""
    return items[0] if len(items) == 1 else list(items)
