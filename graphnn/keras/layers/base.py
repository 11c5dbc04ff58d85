"""Layer: weights made once, sublayers found, a call with its training flag, losses and dtype."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from graphnn import ops, tree
from graphnn.compiler.ir.types import FLOATS, as_dtype
from graphnn.keras import constraints, initializers, mixed_precision, naming, regularizers
from graphnn.keras.layers.abstract import output_shape_of
from graphnn.keras.layers.context import CONTEXT, OwnList, entered
from graphnn.keras.layers.saved import Saved
from graphnn.keras.layers.symbolic import (
    Call,
    FromCalls,
    call_symbolically,
    has_symbolic,
    single,
)
from graphnn.keras.layers.tracking import unique
from graphnn.keras.masks import mask_of, set_mask, set_masks
from graphnn.keras.shapes import shapes_of
from graphnn.runtime.errors import ArgumentError, StateError, missing_method, warn_user
from graphnn.state import init_scope
from graphnn.tensor import Tensor
from graphnn.variable import Variable

T = TypeVar("T", bound=Callable[..., Any])
_BASE_ARGUMENTS = ("trainable", "name", "dtype", "activity_regularizer", "input_shape")
_build_lock = threading.RLock()  # one layer must not be built by two threads


@dataclass(frozen=True)
class CallSignature:
    """What a `call` method takes: its positional names, where and how `training` is, and the
    names of the parameters for masks with those of the inputs that they belong to."""

    names: tuple[str, ...]
    training: bool
    default: Any
    masks: tuple[tuple[str, str], ...] = ()


@functools.cache
def _signature(call: Any) -> CallSignature:
    parameters = list(inspect.signature(call).parameters.values())[1:]
    names = tuple(
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
    found = next((p for p in parameters if p.name == "training"), None)
    default = None if found is None or found.default is found.empty else found.default
    every = {p.name for p in parameters}
    masks = [(f"{name}_mask", name) for name in names if f"{name}_mask" in every]
    if names and "mask" in every and names[0] != "mask":
        masks.append(("mask", names[0]))
    return CallSignature(names, found is not None, default, tuple(masks))


def automatic(get_config: T) -> T:
    """Mark a `get_config` that works from the constructor's arguments."""
    get_config.automatic = True  # type: ignore[attr-defined]
    return get_config


def _is_automatic(cls: type[Layer]) -> bool:
    return getattr(cls.get_config, "automatic", False)


def _building(build: Callable[..., Any]) -> Callable[..., Any]:
    """A `build` method that runs eagerly, also in the middle of a trace, and marks the layer."""

    @functools.wraps(build)
    def wrapped(self: Layer, *args: Any, **kwargs: Any) -> None:
        with init_scope():
            if CONTEXT.layers and CONTEXT.layers[-1] is self:
                build(self, *args, **kwargs)
            else:
                with entered(self, CONTEXT.training):
                    build(self, *args, **kwargs)
        self.built = True
        shapes = inspect.signature(build).bind(self, *args, **kwargs).arguments
        self.__dict__["_build_shapes"] = dict(list(shapes.items())[1:])

    return wrapped


class Layer(Saved):
    """A piece of computation with its state.

    Subclasses define `call(inputs)`, and `build(input_shape)` if the weights' shapes depend on the
    inputs; it runs once, at the first call. `call` may take `training`.

    trainable: whether training changes the weights. name: unique within a model; made from the
    class name if left out. dtype: a dtype, a policy name such as "mixed_bfloat16", or a
    DTypePolicy. activity_regularizer: a penalty on the outputs.

    >>> class Scale(graphnn.keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.w = self.add_weight(shape=(input_shape[-1],), initializer="ones")
    ...     def call(self, inputs):
    ...         return inputs * self.w
    >>> layer = Scale()
    >>> layer(graphnn.ones((2, 3))).shape == (2, 3), len(layer.weights)
    (True, 1)
    """

    supports_masking: bool = False  # whether outputs have the mask that compute_mask gives
    input = FromCalls(lambda call: single(call.inputs))
    output = FromCalls(lambda call: call.structure)
    built: bool
    _ready: bool
    _losses: OwnList
    _loss_functions: list[Callable[[], Any]]
    _penalties: list[tuple[Any, Any]]  # regularized weights and their regularizers
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _input_shape: tuple[int | None, ...] | None
    _output_shape: Any
    _calls: list[Call]  # on symbolic tensors

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.__dict__.update(
            _ready=False,
            built=False,
            _losses=OwnList(),
            _loss_functions=[],
            _penalties=[],
            _calls=[],
        )
        if _is_automatic(cls):
            self.__dict__["_arguments"] = (args, kwargs)
        return self

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "build" in cls.__dict__:
            cls.build = _building(cls.build)  # type: ignore[method-assign]
        if "compute_mask" in cls.__dict__ and "supports_masking" not in cls.__dict__:
            cls.supports_masking = True

    def __init__(
        self,
        *,
        trainable: bool = True,
        name: str | None = None,
        dtype: Any = None,
        activity_regularizer: Any = None,
        input_shape: tuple[int | None, ...] | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise ArgumentError(
                type(self).__name__,
                received="the argument " + ", ".join(unknown),
                expected="arguments of its own, or " + ", ".join(_BASE_ARGUMENTS),
                fix="check the spelling, or take the argument in your own __init__",
            )
        self.name = name or naming.unique_name(type(self).__name__)
        self.dtype_policy = mixed_precision.get(dtype)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.__dict__.update(_input_shape=input_shape, _output_shape=None, _ready=True)
        if not trainable:
            self.trainable = False

    # ---- dtypes -----------------------------------------------------------------------------

    @property
    def dtype(self) -> str:
        """Name of the dtype of the weights."""
        return self.dtype_policy.variable_dtype

    variable_dtype = dtype

    @property
    def compute_dtype(self) -> str:
        """Name of the dtype that `call` computes in; floating-point inputs are cast to it."""
        return self.dtype_policy.compute_dtype

    def in_compute_dtype(self, weight: Any) -> Any:
        """A weight in the compute dtype; the weight itself where it has that dtype already."""
        target = self.dtype_policy.compute
        if weight is None or weight.dtype == target or weight.dtype not in FLOATS:
            return weight
        return ops.cast(weight, target)

    def _cast_input(self, value: Any) -> Any:
        if hasattr(value, "__array__") and not isinstance(value, Tensor | Variable):
            value = ops.asarray(value)
        policy = self.dtype_policy
        if not isinstance(value, Tensor | Variable) or value.dtype not in FLOATS:
            return value
        if value.dtype == policy.compute:
            return value
        return set_mask(ops.cast(value, policy.compute), mask_of(value))

    def _cast_inputs(self, values: Any) -> Any:
        if isinstance(values, Tensor):
            return self._cast_input(values) if self.dtype_policy.casts_inputs else values
        if not tree.is_nested(values):
            return self._cast_input(values) if self.dtype_policy.casts_inputs else values
        return tree.map_structure(self._cast_inputs, values)

    # ---- weights ----------------------------------------------------------------------------

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        name: str | None = None,
        regularizer: Any = None,
        constraint: Any = None,
        synchronization: Any = None,
        aggregation: Any = None,
        **_: Any,
    ) -> Any:
        """A new Variable that belongs to this layer.

        shape: sizes, () by default. initializer: a name, object or function of (shape, dtype);
        Glorot uniform for floats and zeros otherwise by default. dtype: the layer's own by default.
        regularizer: a penalty that joins `losses`. constraint: applied after each update.
        synchronization, aggregation: as in `Variable`, for weights that `call` assigns.
        Raises ArgumentError for a size that is not known.
        """
        if isinstance(shape, str):  # Keras 2 took the name first
            raise ArgumentError(
                f"add_weight of {type(self).__name__}",
                received=f"{shape!r} as shape",
                expected="a tuple of sizes",
                fix=f"pass it by keyword: add_weight(name={shape!r}, shape=...)",
            )
        sizes = (shape,) if isinstance(shape, int) else tuple(shape or ())
        if any(not isinstance(s, int) and not hasattr(s, "__index__") for s in sizes):
            raise ArgumentError(
                f"add_weight of {self.name}",
                received=f"shape {sizes}",
                expected="known sizes",
                fix="build the layer with inputs whose size on this axis is known",
            )
        kind = as_dtype(dtype or self.dtype_policy.variable_dtype)
        default = "glorot_uniform" if kind in FLOATS else "zeros"
        make = initializers.get(initializer if initializer is not None else default)
        with init_scope():
            variable = Variable(
                make(tuple(map(int, sizes)), dtype=kind),
                trainable=trainable,
                dtype=kind,
                name=self._weight_name(name),
                constraint=constraints.get(constraint),
                synchronization=synchronization,
                aggregation=aggregation,
            )
        self._added.append(variable)
        if regularizer is not None:
            self._penalties.append((variable, regularizers.get(regularizer)))
        if not self._trainable and trainable:
            self._set_trainable(False)
        return variable

    def _weight_name(self, name: str | None) -> str:
        inside = bool(CONTEXT.layers) and CONTEXT.layers[-1] is self
        path = CONTEXT.path() if inside else self.name
        return f"{path}/{name or f'weight_{len(self._added)}'}"

    def build(self, input_shape: Any) -> None:
        """Make the weights. Called once, with the shape of the inputs; an unknown size is None."""
        self.built = True

    # ---- losses -----------------------------------------------------------------------------

    def add_loss(self, loss: Any, **_: Any) -> None:
        """Add a scalar to `losses`: a tensor made in `call`, a list of them, or a function without
        arguments that is asked each time."""
        for item in loss if isinstance(loss, list | tuple) else [loss]:
            if callable(item) and not hasattr(item, "dtype"):
                self._loss_functions.append(item)
            elif item is not None:
                self._losses.append(item)

    @property
    def losses(self) -> list[Any]:
        """Scalars added in the last call, by this layer and those below it, then the penalties of
        regularized weights."""
        layers = self._walk()
        found = [loss for layer in layers for loss in layer._losses]
        found += [function() for layer in layers for function in layer._loss_functions]
        if self._trainable:
            pairs = [p for layer in layers if layer._trainable for p in layer._penalties]
            found += [penalty(weight) for weight, penalty in unique_pairs(pairs)]
        return found

    def _clear_losses(self) -> None:
        for layer in self._walk():
            layer._losses.clear()

    # ---- the call ---------------------------------------------------------------------------

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The computation. Subclasses define it."""
        raise missing_method(self, "call(self, inputs)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Build the layer if need be, and run `call`.

        training: True in training; without it the calling layer's flag holds, and False on top.
        """
        if not self._ready:
            raise StateError(
                f"a call of {type(self).__name__}",
                received="a layer whose base class was not initialised",
                expected="super().__init__() to have been called",
                fix=f"call super().__init__() first in {type(self).__name__}.__init__",
            )
        if has_symbolic(args, kwargs):
            return call_symbolically(self, args, kwargs)
        training, args, kwargs = self._resolve_training(args, kwargs)
        mask, kwargs = self._resolve_masks(args, kwargs)
        args = tuple(map(self._cast_inputs, args))
        kwargs = {k: self._cast_inputs(v) for k, v in kwargs.items()}
        if not CONTEXT.layers:
            self._clear_losses()
        with entered(self, training):
            first = not self.built
            if first:
                self._build_once(args, kwargs)
            outputs = self.call(*args, **kwargs)
            if self.activity_regularizer is not None:
                for tensor in tree.flatten(outputs):
                    self.add_loss(self.activity_regularizer(tensor))
        if first:
            self.__dict__["_output_shape"] = shapes_of(outputs, batch=None)
        if mask is not None or self.supports_masking:
            self._mark(args[0] if args else None, outputs, mask)
        return outputs

    # ---- masks ------------------------------------------------------------------------------

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the outputs: bools, False for steps that are padding; None for none.

        Layers that override it, or set `supports_masking`, pass masks on; by default the same one.
        """
        return mask

    def _resolve_masks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """The mask of the first input, and the keywords with masks for the parameters that ask."""
        signature = _signature(type(self).call)
        given = kwargs.get("mask")
        mask = given if given is not None or not args else mask_of(args[0])
        for parameter, name in signature.masks:
            position = signature.names.index(name)
            value = args[position] if position < len(args) else kwargs.get(name)
            place = signature.names.index(parameter) if parameter in signature.names else len(args)
            if place < len(args):  # given by position
                mask = args[place] if parameter == "mask" else mask
            elif kwargs.get(parameter) is None and (found := mask_of(value)) is not None:
                kwargs = {**kwargs, parameter: found}
        if given is None and "mask" in kwargs and "mask" not in dict(signature.masks):
            kwargs = {k: v for k, v in kwargs.items() if k != "mask"}
        return mask, kwargs

    def _mark(self, inputs: Any, outputs: Any, mask: Any) -> None:
        """Give the outputs their masks, unless layers inside have done so."""
        if mask_of(outputs) is not None:
            return
        if self.supports_masking:
            set_masks(outputs, self.compute_mask(inputs, mask))
            return
        if _signature(type(self).call).masks:  # it has seen the mask
            return
        warn_user(
            f"{type(self).__name__} {self.name!r} got inputs with a mask, which it does not pass "
            "on: layers after it, losses and metrics count padding too. Set supports_masking = "
            "True in its __init__ if the mask holds for its outputs as well."
        )

    def _resolve_training(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, tuple[Any, ...], dict[str, Any]]:
        signature = _signature(type(self).call)
        given = kwargs.get("training")
        position = signature.names.index("training") if "training" in signature.names else -1
        if 0 <= position < len(args):
            given = args[position]
        for choice in (CONTEXT.training, signature.default, False):
            given = choice if given is None else given
        if 0 <= position < len(args):
            args = (*args[:position], given, *args[position + 1 :])
        elif signature.training:
            kwargs = {**kwargs, "training": given}
        elif "training" in kwargs:
            kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        return bool(given), args, kwargs

    def _build_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with _build_lock:
            if self.built:
                return
            if self._needs_build():
                self.build(**self._build_arguments(args, kwargs))
            self.built = True

    def _needs_build(self) -> bool:
        return type(self).build is not Layer.build

    def _build_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Shapes for the parameters of `build`: of the first input, or by name, `query_shape`."""
        wanted = list(inspect.signature(type(self).build).parameters)[1:]
        given = dict(zip(_signature(type(self).call).names, args, strict=False)) | kwargs
        if len(wanted) <= 1:
            first = args[0] if args else next(iter(given.values()), None)
            return {name: shapes_of(first) for name in wanted}
        shapes = {f"{name}_shape": shapes_of(v) for name, v in given.items()}
        return {name: shapes[name] for name in wanted if name in shapes}

    # ---- shapes and configs -----------------------------------------------------------------

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output shape for an input shape, in which None is a size that may vary.

        Found by running `call` on tensors without values; the layer is built by it.
        """
        return output_shape_of(self, input_shape)

    @automatic
    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal layer, without weights.

        A subclass with arguments of its own adds them to what super().get_config() returns; one
        that does not override this gets its constructor's arguments if they are plain values.
        """
        config: dict[str, Any] = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": mixed_precision.serialize(self.dtype_policy),
        }
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if not _is_automatic(type(self)):
            return config
        config |= self._plain_arguments()
        taken = inspect.signature(type(self).__init__).parameters
        if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            return config
        return {k: v for k, v in config.items() if k in taken}

    def _plain_arguments(self) -> dict[str, Any]:
        args, kwargs = self._arguments
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs)
        own = dict(list(bound.arguments.items())[1:])
        own.update(own.pop("kwargs", {}))
        given = {k: v for k, v in own.items() if k not in _BASE_ARGUMENTS}
        plain = (bool, int, float, str, type(None))
        for key, value in given.items():
            if any(not isinstance(leaf, plain) for leaf in tree.flatten(value)):
                raise StateError(
                    f"get_config of {type(self).__name__}",
                    received=f"the constructor argument {key} = {value!r}",
                    expected="a get_config method that says how to store it",
                    fix="define get_config() and return the constructor's arguments from it",
                )
        return given

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """A layer equal to the one whose `get_config` this is, with new weights."""
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        # Losses may be values of a trace, which cannot be copied.
        return {**self.__dict__, "_losses": OwnList()}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={getattr(self, 'name', '?')}, built={self.built}>"


def unique_pairs(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Pairs whose first items differ by identity: a shared weight is penalised once."""
    first = unique(variable for variable, _ in pairs)
    penalties = {id(variable): penalty for variable, penalty in reversed(pairs)}
    return [(variable, penalties[id(variable)]) for variable in first]
