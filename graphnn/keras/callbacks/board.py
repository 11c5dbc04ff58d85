"""TensorBoard: curves, histograms and the compiled graph of a run, for its page in a browser."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from graphnn.keras.callbacks.base import Callback, Logs, as_number, as_numbers
from graphnn.keras.callbacks.events import EventWriter, grey, require_tensorboard
from graphnn.keras.callbacks.graphdef import graph_def
from graphnn.runtime.errors import ArgumentError


class TensorBoard(Callback):
    """Write event files that `tensorboard --logdir=...` shows.

    Training goes to the run "train", validation to "validation". Scalars by epoch are called
    "epoch_loss", "epoch_accuracy", ..., by batch "batch_loss", ..., and those of evaluations
    "evaluation_loss_vs_iterations", .... The graph is that of the compiled train step after the
    compiler's passes: scopes are layers, and each node knows the user's line.

    log_dir: where to write. histogram_freq: epochs between histograms of the weights, 0 for none.
    write_graph: whether the graph is written, after the first batch. write_images: whether the
    weights are also written as pictures, at the same epochs. write_steps_per_second: whether the
    pace is written. update_freq: "epoch", "batch", or a number of batches between scalars by batch;
    then a value waits for the device. profile_batch: accepted, nothing is profiled.

    Needs the package tensorboard: MissingTensorBoard says so. Raises ArgumentError for another
    update_freq, and for embeddings_freq, which is not offered.
    """

    _takes_tensors = True
    _kept = ("_step", "_epoch_step")

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        super().__init__()
        require_tensorboard()
        if embeddings_freq:
            raise ArgumentError(
                "keras.callbacks.TensorBoard",
                received=f"embeddings_freq={embeddings_freq}",
                expected="0: the projector of embeddings is not offered",
                fix="leave embeddings_freq out, and save the model with ModelCheckpoint",
            )
        self.log_dir, self.histogram_freq = os.fspath(log_dir), histogram_freq
        self.write_graph, self.write_images = write_graph, write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = _frequency(update_freq)
        self._train = EventWriter(os.path.join(self.log_dir, "train"))
        self._validation = EventWriter(os.path.join(self.log_dir, "validation"))
        self._step, self._epoch_step = 0, 0
        self._graph_written, self._training = False, False
        self._batch_time, self._epoch_time = 0.0, 0.0

    # ---- training -----------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._step, self._graph_written, self._training = 0, False, True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch_time, self._epoch_step = time.perf_counter(), self._step

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._batch_time = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        # By the batches' numbers: a hook may stand for several batches.
        before, self._step = self._step, self._epoch_step + batch + 1
        step = self._step - 1
        if not self._graph_written:
            self._write_graph()
        if self.write_steps_per_second:
            pace = (self._step - before) / max(time.perf_counter() - self._batch_time, 1e-9)
            self._train.scalar("batch_steps_per_second", pace, step)
        if self.update_freq and -(-before // self.update_freq) * self.update_freq <= step:
            for name, value in (logs or {}).items():
                self._train.scalar(f"batch_{name}", as_number(value), step)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        found = dict(as_numbers(logs))
        rate = getattr(self.model.optimizer, "learning_rate", None)
        if rate is not None:
            found["learning_rate"] = float(rate)
        for name, value in found.items():
            writer = self._validation if name.startswith("val_") else self._train
            if isinstance(value, int | float):
                writer.scalar(f"epoch_{name.removeprefix('val_')}", value, epoch)
        if self.write_steps_per_second:
            seconds = max(time.perf_counter() - self._epoch_time, 1e-9)
            pace = (self._step - self._epoch_step) / seconds
            self._train.scalar("epoch_steps_per_second", pace, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        self._flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._training = False
        self._release()

    def on_test_end(self, logs: Logs | None = None) -> None:
        iterations = getattr(self.model.optimizer, "iterations", None)
        if iterations is not None:
            for name, value in as_numbers(logs).items():
                tag = f"evaluation_{name}_vs_iterations"
                self._validation.scalar(tag, value, int(iterations))
        if not self._training:
            self._release()

    # ---- what is written ----------------------------------------------------------------

    def _write_weights(self, epoch: int) -> None:
        for weight in self.model.weights:
            tag, array = weight.name.replace(":", "_"), weight.numpy()
            self._train.histogram(f"{tag}/histogram", array, epoch)
            if self.write_images and array.size:
                self._train.image(f"{tag}/image", grey(array), epoch)

    def _write_graph(self) -> None:
        self._graph_written = True
        if not self.write_graph:
            return
        step = self.model._stepper("train")
        if not hasattr(step, "graph"):  # that of replicas holds the step of one program
            step = getattr(step, "_step", None)
        graph = step.graph() if hasattr(step, "graph") else None
        if graph is not None:
            self._train.graph(graph_def(graph))

    def _flush(self) -> None:
        self._train.flush()
        self._validation.flush()

    def _release(self) -> None:
        self._training = False
        self._train.close()
        self._validation.close()


def _frequency(update_freq: Any) -> int:
    """Batches between two scalars by batch; 0 for none."""
    if update_freq == "epoch":
        return 0
    if update_freq == "batch":
        return 1
    if isinstance(update_freq, int) and update_freq >= 1 and math.isfinite(update_freq):
        return update_freq
    raise ArgumentError(
        "keras.callbacks.TensorBoard",
        received=f"update_freq={update_freq!r}",
        expected='"epoch", "batch", or a number of batches of 1 or more',
        fix='use update_freq="epoch"',
    )
