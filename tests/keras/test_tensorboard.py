"""TensorBoard: event files that tensorboard's own reader reads, and its page in a browser."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import callbacks, layers
from graphnn.keras.callbacks import events
from graphnn.runtime.errors import ArgumentError
from tests.keras.browser import CHROMIUM, Browser

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import (
    STORE_EVERYTHING_SIZE_GUIDANCE,
    EventAccumulator,
)
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.util.tensor_util import make_ndarray

X = np.linspace(-1, 1, 80, dtype="float32").reshape(40, 2)
Y = X.sum(1, keepdims=True)


def train(folder: Path, epochs: int = 3, run_eagerly: bool = False, **settings: Any) -> Any:
    tf.random.set_seed(0)
    hidden = layers.Dense(4, activation="relu", name="hidden")
    model = keras.Sequential([hidden, layers.Dense(1, name="head")], name="net")
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=run_eagerly)
    board = callbacks.TensorBoard(log_dir=folder, **settings)
    return model.fit(
        X, Y, batch_size=10, epochs=epochs, validation_data=(X, Y), verbose=0, callbacks=[board]
    )


def read(folder: Path) -> Any:
    found = EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE)
    return found.Reload()


def curve(run: Any, tag: str) -> list[float]:
    return [float(make_ndarray(e.tensor_proto)) for e in run.Tensors(tag)]


def test_scalars_by_epoch(tmp_path: Path) -> None:
    history = train(tmp_path).history
    training, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert set(training.Tags()["tensors"]) == {"epoch_loss", "epoch_mae", "epoch_learning_rate"}
    np.testing.assert_allclose(curve(training, "epoch_loss"), history["loss"], rtol=1e-6)
    np.testing.assert_allclose(curve(validation, "epoch_mae"), history["val_mae"], rtol=1e-6)
    assert [e.step for e in training.Tensors("epoch_loss")] == [0, 1, 2]
    assert curve(training, "epoch_learning_rate") == pytest.approx([0.001] * 3)
    against = validation.Tensors("evaluation_loss_vs_iterations")
    assert [e.step for e in against] == [4, 8, 12]
    about = training.SummaryMetadata("epoch_loss")
    assert about.plugin_data.plugin_name == "scalars"


@pytest.mark.parametrize(("every", "steps"), [("batch", range(12)), (5, (0, 5, 10))])
def test_scalars_by_batch(every: Any, steps: Any, tmp_path: Path) -> None:
    train(tmp_path, update_freq=every, write_steps_per_second=True)
    run = read(tmp_path / "train")
    assert [e.step for e in run.Tensors("batch_loss")] == list(steps)
    assert len(run.Tensors("batch_steps_per_second")) == 12
    assert min(curve(run, "epoch_steps_per_second")) > 0


def test_histograms_and_pictures_of_weights(tmp_path: Path) -> None:
    train(tmp_path, histogram_freq=2, write_images=True)
    run = read(tmp_path / "train")
    tag = next(t for t in run.Tags()["tensors"] if t.endswith("hidden/kernel/histogram"))
    found = run.Tensors(tag)
    assert [e.step for e in found] == [0, 2]
    table = make_ndarray(found[-1].tensor_proto)
    assert table.shape == (30, 3) and table[:, 2].sum() == 8
    (event,) = run.Tensors(tag.replace("histogram", "image"))[:1]
    width, height, picture = make_ndarray(event.tensor_proto).tolist()
    assert (width, height) == (b"4", b"2")
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(picture))
    pixels = np.asarray(image)
    assert pixels.shape == (2, 4) and {pixels.min(), pixels.max()} == {0, 255}


def test_the_graph_is_that_of_the_compiled_step(tmp_path: Path) -> None:
    train(tmp_path)
    graph = GraphDef.FromString(read(tmp_path / "train").Graph().SerializeToString())
    names = [node.name for node in graph.node]
    assert len(names) == len({*names})
    known = set(names)
    assert all(source in known for node in graph.node for source in node.input)
    scopes = {name.rsplit("/", 1)[0] for name in names}
    assert {"net/hidden", "net/head", "loss", "outputs", "inputs"} <= scopes
    assert any(scope.startswith("adam") for scope in scopes)
    kinds = {node.name: node.op for node in graph.node}
    assert kinds["net/hidden/kernel"] == "Variable" and kinds["net/hidden/matmul"] == "MatMul"
    assert kinds["net/hidden/kernel_assign"] == "Assign"
    product = next(n for n in graph.node if n.name == "net/hidden/matmul")
    sizes = [d.size for d in product.attr["_output_shapes"].list.shape[0].dim]
    assert sizes == [-1, 4]
    assert b"test_tensorboard.py" in product.attr["line"].s


def test_no_graph_is_written_on_request_or_eagerly(tmp_path: Path) -> None:
    for name, settings in {"a": {"write_graph": False}, "b": {"run_eagerly": True}}.items():
        train(tmp_path / name, 1, **settings)
        assert not read(tmp_path / name / "train").Tags()["graph"]


def test_evaluations_by_themselves(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    board = callbacks.TensorBoard(tmp_path)
    loss = model.evaluate(X, Y, verbose=0, callbacks=[board])
    run = read(tmp_path / "validation")
    assert curve(run, "evaluation_loss_vs_iterations") == pytest.approx([loss])


def test_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="update_freq='never'"):
        callbacks.TensorBoard(update_freq="never")
    with pytest.raises(ArgumentError, match="embeddings_freq=1"):
        callbacks.TensorBoard(embeddings_freq=1)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"graphnn\[tensorboard\]"):
        callbacks.TensorBoard()


def test_buckets() -> None:
    table = events.buckets([0.0, 1.0, 1.0, 3.0, np.nan, np.inf])
    assert table.shape == (30, 3) and table[:, 2].sum() == 4
    assert (table[0, 0], table[-1, 1]) == (0.0, 3.0)
    assert events.buckets([]).shape == (0, 3)


# ---- the page ---------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(url: str) -> bytes:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def shows_a_curve(view: Any) -> bool:
    """Whether a line runs through the cards in the colour of a run's dot in the list of runs."""
    dots, cards = view[100:280, 235:275], view[200:, 290:1130]
    colours, counts = np.unique(dots.reshape(-1, 3), axis=0, return_counts=True)
    counts[np.ptp(colours, axis=1) < 100] = 0
    if not counts.any():
        return False
    near = abs(cards - colours[counts.argmax()]).max(-1) < 60
    return bool(near.any(0).sum() > 100)  # columns; a dot has about 12


def shows_a_graph(view: Any) -> bool:
    """Whether there are boxes, in the grey of name scopes, for inputs, net, loss, adam, outputs."""
    return bool((abs(view[100:700, 380:1000] - 237).max(-1) < 6).sum() > 10_000)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_curve_and_graph_in_a_browser(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    train(tmp_path / "logs", epochs=5)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "logs")]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--load_fast=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while b"train" not in wait_for(f"{address}/data/runs"):
            time.sleep(0.3)
        with Browser(tmp_path / "profile") as browser:
            browser.open(f"{address}/?tagFilter=epoch_loss#timeseries")
            browser.wait(shows_a_curve)
            assert "epoch_loss" in browser.text()
            browser.open(f"{address}/#graphs&run=train")
            browser.wait(shows_a_graph)
    finally:
        server.terminate()
        server.wait(30)
