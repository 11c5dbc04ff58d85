"""The methods of models that save and load."""

from __future__ import annotations

import inspect
from typing import Any

from graphnn.keras import serialization
from graphnn.keras.saving import api
from graphnn.runtime.errors import warn_user

_KEPT = (
    "optimizer",
    "loss",
    "loss_weights",
    "metrics",
    "weighted_metrics",
    "run_eagerly",
    "steps_per_execution",
    "jit_compile",
)


class Saving:
    """Mixed in beside Trainer and Layer."""

    compile: Any
    optimizer: Any
    trainable_weights: Any
    built: bool
    _compiled_with: dict[str, Any] | None = None

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None) -> None:
        """Write the model: how it is made, its weights, how it was compiled, the optimizer's state.

        See `keras.saving.save_model` for the arguments and errors.
        """
        api.save_model(self, filepath, overwrite, zipped)

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the weights and the optimizer's state.

        See `keras.saving.save_weights` for the arguments and errors.
        """
        api.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Take the weights, and the optimizer's state, from a file.

        See `keras.saving.load_weights` for the arguments and errors.
        """
        api.load_weights(self, filepath, skip_mismatch)

    def to_json(self, **kwargs: Any) -> str:
        """How the model is made, as JSON text for `keras.models.model_from_json`."""
        return api.model_to_json(self, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """The arguments of `compile` as plain values; None for a model that was not compiled."""
        if self._compiled_with is None:
            return None
        return {
            key: serialization.serialize_keras_object(value)
            for key, value in self._compiled_with.items()
            if key in _KEPT
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model as the one whose `get_compile_config` this is.

        A subclass with a `compile` of its own overrides this; otherwise it stays uncompiled, with a
        warning.
        """
        if type(self).compile.__module__.split(".")[0] != __name__.split(".")[0]:
            warn_user(
                f"{type(self).__name__} has a compile() of its own: the model is not compiled; "
                "call compile(), or define get_compile_config() and compile_from_config()"
            )
            return
        taken = inspect.signature(self.compile).parameters
        arguments = {k: v for k, v in config.items() if k in taken}
        self.compile(**serialization.deserialize_keras_object(arguments))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_weights)
