"""Trainer: compile, fit, evaluate, predict. The one training loop of the project."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.keras import metrics as metrics_module
from graphnn.keras import optimizers
from graphnn.keras.callbacks.base import CallbackList, as_numbers
from graphnn.keras.callbacks.progress import with_defaults
from graphnn.keras.layers.core import positive
from graphnn.keras.models.compiled import CompiledLoss, CompiledMetrics, summed
from graphnn.keras.models.data import (
    ArrayData,
    BatchSource,
    IterableData,
    class_weights,
    make_source,
    pack_x_y_sample_weight,
    split_validation,
    unpack_x_y_sample_weight,
)
from graphnn.keras.models.feeding import gather, on_device, sent
from graphnn.keras.models.functions import StepFunctions
from graphnn.keras.models.outputs import check_losses, check_metrics, known_names
from graphnn.keras.models.replicas import make_step
from graphnn.keras.models.runs import (
    Run,
    check_counts,
    flat,
    is_validated,
    joined,
    level_of,
    released,
)
from graphnn.keras.models.step import EagerStep, Step
from graphnn.keras.shapes import batch_size_of
from graphnn.runtime.errors import ArgumentError, StateError, warn_user
from graphnn.state import state
from graphnn.tape import GradientTape

Logs = dict[str, Any]


class Trainer(StepFunctions):
    """What a Model needs to learn: mixed in beside Layer.

    Override `train_step(data)` for another way of training; it runs compiled, and returns a dict
    from names to values.
    """

    optimizer: Any = None
    loss: Any = None
    compiled_loss: Any = None
    compiled_metrics: Any = None
    stop_training: bool = False
    run_eagerly: bool = False
    steps_per_execution: int = 1
    history: Any = None
    _loss_tracker: Any = None
    _steps: Any = None
    _strategy: Any = None  # in whose scope the model was compiled
    _run: Any = None
    _compiled_with: dict[str, Any] | None = None  # the arguments of compile

    # ---- compile ------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        steps_per_execution: int = 1,
    ) -> None:
        """Say how to train.

        optimizer: a name or Optimizer. loss: a name, function of (y_true, y_pred) or Loss; a list
        or dict of them for several outputs. metrics: names, functions or Metrics, without sample
        weights; weighted_metrics: with them. run_eagerly: run the steps line by line.
        jit_compile: accepted for Keras' sake; steps are compiled unless `run_eagerly`.
        auto_scale_loss: under the policy "mixed_float16", wrap the optimizer in LossScaleOptimizer.
        steps_per_execution: batches for one call of the callbacks' batch hooks, which get the
        number of the first batch at the begin and of the last one at the end. Raises
        ArgumentError for names that do not exist, and for outputs that the model does not have.
        """
        given = locals()
        output_names = getattr(self, "output_names", None)
        known = known_names(self, output_names)
        check_losses(loss, loss_weights, known)
        check_metrics("metrics", metrics, known)
        check_metrics("weighted_metrics", weighted_metrics, known)
        self.optimizer = optimizers.get(optimizer)
        given.pop("self")
        self._compiled_with = {**given, "optimizer": self.optimizer}
        half = self.dtype_policy.name == "mixed_float16"  # type: ignore[attr-defined]
        if auto_scale_loss and half and self.optimizer is not None:
            self.optimizer = optimizers.with_loss_scale(self.optimizer)
        self.loss, self.run_eagerly = loss, run_eagerly
        self._loss_tracker = metrics_module.Mean(name="loss")
        self.compiled_loss = CompiledLoss(loss, loss_weights, self._loss_tracker)
        self.compiled_metrics = CompiledMetrics(metrics, weighted_metrics)
        self.compiled_loss.output_names = self.compiled_metrics.output_names = output_names
        self.steps_per_execution = positive("compile", "steps_per_execution", steps_per_execution)
        self._forget_functions()
        self.stop_training = False
        self._steps = None
        self.__dict__["_strategy"] = state.strategy

    @property
    def metrics(self) -> list[Any]:
        """The mean loss, then the metrics of `compile`, then those of the layers."""
        found: list[Any] = []
        if self._loss_tracker is not None:
            found = [self._loss_tracker, *self.compiled_loss.metrics]
            found += self.compiled_metrics.metrics
        own: list[Any] = super().metrics  # type: ignore[misc]
        return list({id(m): m for m in [*found, *own]}.values())

    @property
    def metrics_names(self) -> list[str]:
        """Names of the metrics."""
        return [m.name for m in self.metrics]

    def reset_metrics(self) -> None:
        """Forget the batches seen so far in all metrics."""
        for metric in self.metrics:
            metric.reset_state()

    def get_metrics_result(self) -> Logs:
        """Values of all metrics by name."""
        logs: Logs = {}
        for metric in self.metrics:
            value = metric.result()
            logs |= value if isinstance(value, dict) else {metric.name: value}
        return logs

    # ---- the steps ----------------------------------------------------------------------

    def train_step(self, data: Any) -> Logs:
        """One step of training. data: (x, y, sample_weight) as far as given. Override at will."""
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        with GradientTape() as tape:
            y_pred = self(x, training=True)  # type: ignore[operator]
            loss = self.compute_loss(x, y, y_pred, sample_weight)
            scaled = self.optimizer.scale_loss(loss)
        self._loss_tracker.update_state(loss, sample_weight=batch_size_of(x))
        weights = self.trainable_weights  # type: ignore[attr-defined]
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> Logs:
        """One step of evaluation."""
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)  # type: ignore[operator]
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        self._loss_tracker.update_state(loss, sample_weight=batch_size_of(x))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def predict_step(self, data: Any) -> Any:
        """Predictions for one batch."""
        x, _, _ = unpack_x_y_sample_weight(data)
        return self(x, training=False)  # type: ignore[operator]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss of `compile` plus the losses that layers added, a scalar. Raises ArgumentError
        if there is neither."""
        own = None
        if self.compiled_loss is not None and self.loss is not None:
            own = self.compiled_loss.total(y, y_pred, sample_weight)
        return summed([*([] if own is None else [own]), *self.losses])  # type: ignore[attr-defined]

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Logs:
        """Update the metrics of `compile`; values of all metrics by name."""
        if self.compiled_metrics is not None and y is not None:
            self.compiled_metrics.update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def _stepper(self, kind: str) -> Any:
        """The compiled (or eager) form of `train_step`, `test_step` or `predict_step`."""
        if self._steps is None:
            self._steps = {}
        if (kind, self.run_eagerly) not in self._steps:
            method = getattr(self, f"{kind}_step")

            def step(data: Any) -> Any:
                result = method(data)
                self._clear_losses()  # type: ignore[attr-defined]
                return result

            make = EagerStep if self.run_eagerly else Step
            self._steps[kind, self.run_eagerly] = make_step(kind, self, make, step)
        return self._steps[kind, self.run_eagerly]

    def _check_compiled(self, what: str) -> None:
        if self.optimizer is None and self._loss_tracker is None:
            raise StateError(
                f"{what} of {self.name}",  # type: ignore[attr-defined]
                received="a model that was not compiled",
                expected="compile() to have been called",
                fix=f'call model.compile(optimizer="adam", loss=...) before {what}()',
            )

    # ---- fit ----------------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Collection[int] = 1,
    ) -> Any:
        """Train, and return the History.

        x, y: arrays or tensors with examples along the first axis (dicts, lists and tuples of them
        for several); or x a Dataset, generator or other iterable of batches (x, y) or
        (x, y, sample_weight), or an object with `__len__` and `__getitem__(batch)`. batch_size: 32
        by default. verbose: 0 silent, 1 a bar, 2 a line per epoch. validation_split: share of the
        arrays' end kept for validation. class_weight: weight of each class number. steps_per_epoch:
        batches per epoch; needed for endless iterables, which then go on where the last epoch
        stopped. validation_freq: epochs between validations, or the epochs (from 1) with one.

        On Ctrl-C the weights, `history` and the optimizer stay as the last batch left them.
        Raises StateError before `compile`, ArgumentError and ShapeError for data that do not fit.
        """
        self._check_compiled("fit")
        check_counts(
            "fit",
            batch_size=batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
        )
        if validation_split:
            (x, y, sample_weight), validation_data = split_validation(
                x, y, sample_weight, validation_split
            )
        source = make_source(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            steps=steps_per_epoch,
            shuffle=shuffle,
            reuse=not self.run_eagerly,
            class_weight=class_weight,
        )
        checks = self._validation(validation_data, validation_batch_size or batch_size)
        validates = checks is not None
        steps = steps_per_epoch or source.steps
        calls = self._callbacks(callbacks, verbose, epochs, steps, True, validates)
        run = Run(source, calls, checks, steps_per_epoch)
        self.__dict__["_run"] = run
        try:
            self._fit(run, range(initial_epoch, epochs), validation_steps, validation_freq)
        except BaseException:  # Ctrl-C too: on_train_end is for runs that came to their end
            calls.release()
            raise
        finally:
            self.__dict__["_run"] = None
            source.close()
            if checks is not None:
                checks.close()
        return self.history

    def _fit(
        self,
        run: Run,
        epochs: range,
        validation_steps: int | None,
        validation_freq: int | Collection[int],
    ) -> None:
        """The epochs of `fit`, from a backup on if a callback has one."""
        calls = run.callbacks
        self.stop_training = False
        epochs, first, restore = self._resumed(run, epochs)
        calls.call("on_train_begin")
        if not first:
            restore()
        logs: Logs = {}
        for epoch in epochs:
            if self.stop_training or not self._has_data(run, epoch):
                break
            self.reset_metrics()
            calls.call("on_epoch_begin", epoch)
            if first:  # after the hook: what it changed is in the backup already
                restore()
            logs = as_numbers(self._loop("train", run.source, run.steps, calls, first))
            first = 0
            if run.checks is not None and is_validated(epoch, validation_freq):
                found = self._evaluate(run.checks, validation_steps, calls)
                logs |= {f"val_{name}": value for name, value in found.items()}
            calls.call("on_epoch_end", epoch, logs=logs)
        if self.optimizer is not None:
            self.optimizer.finalize_variable_values(self.trainable_weights)  # type: ignore[attr-defined]
        calls.call("on_train_end", logs=logs)

    def _resumed(self, run: Run, epochs: range) -> tuple[range, int, Callable[[], None]]:
        """The epochs and first batch to begin with, and what puts a backup's state back."""
        backup = run.callbacks.backup()
        if backup is None:
            return epochs, 0, lambda: None
        saved = run.saved = backup._load()
        run.callbacks.set_params({**run.callbacks.params, "resumed": True})
        self._make_variables(run.source)
        return range(saved["epoch"], epochs.stop), saved["batch"], lambda: backup._apply(saved)

    def _make_variables(self, source: BatchSource) -> None:
        """Make weights, slots and metrics, which layers do when they meet the first batch."""
        step = self._stepper("train").bind(source.structure, source.example)
        if hasattr(step, "get_concrete_function"):
            step.get_concrete_function()
        else:
            step(source.example)  # what it changes is overwritten

    def _has_data(self, run: Run, epoch: int) -> bool:
        if run.source.ready():
            return True
        warn_user(
            f"the data ended before epoch {epoch + 1}, and so does training; give a Dataset or "
            "another iterable that can be read again, or a generator that does not end"
        )
        return False

    def _validation(self, data: Any, batch_size: int | None) -> BatchSource | None:
        if data is None:
            return None
        if isinstance(data, tuple | list):
            x, y, weight = unpack_x_y_sample_weight(tuple(data))
        else:
            x, y, weight = data, None, None
        return make_source(
            x, y, weight, batch_size=batch_size, reuse=not self.run_eagerly, restart=True
        )

    def _callbacks(
        self,
        given: Any,
        verbose: int | str,
        epochs: int,
        steps: int | None,
        history: bool = False,
        validates: bool = False,
    ) -> CallbackList:
        terminal = bool(getattr(sys.stdout, "isatty", bool)()) or "ipykernel" in sys.modules
        level = level_of(verbose, terminal)
        params = {"epochs": epochs, "steps": steps, "resumed": False, "validates": validates}
        return with_defaults(given, level, self, params, history)

    def _loop(
        self, kind: str, source: BatchSource, limit: int | None, run: CallbackList, first: int = 0
    ) -> Logs:
        """One pass over the batches, from number `first` on; the logs of the last step."""
        gpu = gather(self)
        step = self._bound(kind, source)
        begin, end = f"on_{kind}_batch_begin", f"on_{kind}_batch_end"
        has_begin, has_end = run.wants(begin), run.wants(end)
        training = kind == "train"
        logs: Logs = self._run.saved["logs"] if first else {}
        batch, every = first - 1, self.steps_per_execution
        if training and self.stop_training:
            return logs
        for batch, leaves in enumerate(on_device(source.epoch(limit, first), gpu), first):
            if has_begin and not batch % every:
                run.call(begin, batch)
            logs = step(leaves)
            if has_end and not (batch + 1) % every:
                run.call(end, batch, logs=logs)
            if training and self.stop_training:
                break
        if batch < 0:
            raise self._no_batches(kind, limit)
        if has_end and (batch + 1) % every:  # an execution that the end of the data cut short
            run.call(end, batch, logs=logs)
        return logs

    def _bound(self, kind: str, source: BatchSource) -> Callable[[Any], Any]:
        """A step as a function of the leaves of one batch."""
        own = self._own_function(kind, source.structure)
        if own is not None:
            return own
        stepper, structure = self._stepper(kind), source.structure
        if isinstance(source, ArrayData):
            return stepper.bind(structure, source.example)  # type: ignore[no-any-return]
        # Batches of a stream may differ in more than their size.
        known: Any = None
        seen: Any = None
        bound: Callable[[Any], Any]

        def step(leaves: Any) -> Any:
            nonlocal known, bound, seen
            if leaves is not seen:
                shapes = [(leaf.dtype, leaf.shape[1:]) for leaf in leaves]
                if shapes != known:
                    known, bound = shapes, stepper.bind(structure, leaves)
                seen = leaves
            return bound(leaves)

        return step

    def _no_batches(self, kind: str, limit: int | None) -> ArgumentError:
        return ArgumentError(
            f"{kind} of {self.name}",  # type: ignore[attr-defined]
            received="no more batches",
            expected=f"{limit or 'some'} batches in each epoch",
            fix="give an iterator that yields epochs * steps_per_epoch batches, or arrays",
        )

    def __getstate__(self) -> dict[str, Any]:
        # Compiled programs belong to this process; the next step compiles anew.
        functions = ("train_function", "test_function", "predict_function")
        own = dict.fromkeys(("_steps", "_run", "_strategy", *functions))
        return {**super().__getstate__(), **own}  # type: ignore[dict-item]

    # ---- evaluate and predict -----------------------------------------------------------

    def _evaluate(self, source: BatchSource, steps: int | None, run: CallbackList) -> Logs:
        if not source.ready():
            raise self._no_batches("test", steps)
        self.reset_metrics()
        run.call("on_test_begin")
        logs = as_numbers(self._loop("test", source, steps, run))
        run.call("on_test_end", logs=logs)
        return logs

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics over all data, as in `fit`.

        Returns: the loss, a list [loss, *metrics] if there are metrics, or a dict of all.
        """
        self._check_compiled("evaluate")
        check_counts("evaluate", batch_size=batch_size, steps=steps)
        source = make_source(
            x, y, sample_weight, batch_size=batch_size, steps=steps, reuse=not self.run_eagerly
        )
        run = self._callbacks(callbacks, verbose, 1, steps or source.steps)
        with released(run, source):
            logs = self._evaluate(source, steps, run)
        return logs if return_dict else flat(logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Outputs for all examples as NumPy arrays, in the structure that the model returns.

        x: arrays, or an iterable of batches x or (x, ...). No call of `compile` is needed.
        """
        check_counts("predict", batch_size=batch_size, steps=steps)
        source = make_source(x, batch_size=batch_size, steps=steps, reuse=not self.run_eagerly)
        run = self._callbacks(callbacks, verbose, 1, steps or source.steps)
        with released(run, source):
            parts, shape = self._predictions(source, steps, run)
        if not parts:
            raise self._no_batches("predict", steps)
        return joined(parts, shape)

    def _predictions(
        self, source: BatchSource, steps: int | None, run: CallbackList
    ) -> tuple[list[list[Any]], Any]:
        """For each batch the leaves of the outputs as arrays; and the outputs of the last one."""
        run.call("on_predict_begin")
        step = self._bound("predict", source)
        parts: list[list[Any]] = []
        told, every, outputs = 0, self.steps_per_execution, None

        def tell() -> None:  # of the batches of one execution
            nonlocal told
            logs = {"outputs": outputs if len(parts) - told == 1 else joined(parts[told:], outputs)}
            told = len(parts)
            run.call("on_predict_batch_end", told - 1, logs=logs)

        for batch, leaves in enumerate(on_device(source.epoch(steps), gather(self))):
            if not batch % every:
                run.call("on_predict_batch_begin", batch)
            outputs = step(leaves)
            parts.append([np.array(t) for t in tree.flatten(outputs)])
            if not (batch + 1) % every:
                tell()
        if told < len(parts):
            tell()
        run.call("on_predict_end")
        return parts, outputs

    # ---- single batches -----------------------------------------------------------------

    def _on_batch(self, kind: str, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        data = pack_x_y_sample_weight(x, y, sample_weight)
        source = IterableData([data])
        leaves = sent(source.example, gather(self))
        return self._stepper(kind).bind(source.structure, leaves)(leaves)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
        reset_metrics: bool = False,
    ) -> Any:
        """One step of training on one batch; the metrics go on from those of earlier batches.

        class_weight: weight of each class number. Returns: the loss, a list [loss, *metrics] if
        there are metrics, or a dict of all.
        """
        self._check_compiled("train_on_batch")
        if reset_metrics:
            self.reset_metrics()
        if class_weight is not None:
            sample_weight = class_weights(class_weight, y, sample_weight)
        logs = as_numbers(self._on_batch("train", x, y, sample_weight))
        return logs if return_dict else flat(logs)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
        reset_metrics: bool = False,
    ) -> Any:
        """One step of evaluation on one batch; otherwise as `train_on_batch`."""
        self._check_compiled("test_on_batch")
        if reset_metrics:
            self.reset_metrics()
        logs = as_numbers(self._on_batch("test", x, y, sample_weight))
        return logs if return_dict else flat(logs)

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs for one batch as NumPy arrays."""
        outputs = self._on_batch("predict", x)
        return tree.map_structure(lambda t: np.array(t), outputs)
