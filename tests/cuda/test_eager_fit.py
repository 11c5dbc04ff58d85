"""Model.fit on the emulated GPU: the numbers of the CPU, and batches that arrive by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn import keras
from graphnn.runtime import devices
from graphnn.runtime.cuda.staging import DEPTH, Stager
from tests.cuda import stand_in

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6)).astype("float32")
Y = (X[:, 0] * 2 > X[:, 1]).astype("int32")
GPU = "/device:GPU:0"


def _model(**options: Any) -> Any:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.layers.Dense(7, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **options)
    return model


def _data(kind: str) -> Any:
    if kind == "arrays":
        return dict(x=X, y=Y, batch_size=16)
    dataset = graphnn.data.Dataset.from_tensor_slices((X, Y)).shuffle(70, seed=1).batch(16)
    if kind == "ahead":
        dataset = dataset.apply(graphnn.data.experimental.prefetch_to_device(GPU))
    return dict(x=dataset)


def _trained(device: str, kind: str = "arrays", **options: Any) -> Any:
    with graphnn.device(device):
        model = _model(**options)
        history = model.fit(**_data(kind), epochs=3, verbose=0, validation_data=(X, Y))
        return history.history, model.predict(X, verbose=0), model


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
@pytest.mark.parametrize("lazy", [False, True])
def test_fit_is_that_of_the_cpu(kind: str, lazy: bool) -> None:
    if reason := stand_in.why_not():
        pytest.skip(reason)
    history, predictions, _ = _trained("/CPU:0", kind)
    with stand_in.emulated(lazy=lazy):
        graphnn.debugging.forget_copies()
        found, outputs, model = _trained("/GPU:0", kind)
        for name, values in history.items():
            np.testing.assert_allclose(found[name], values, rtol=2e-5, err_msg=name)
        np.testing.assert_allclose(outputs, predictions, rtol=1e-4, atol=1e-5)
        kept = [*model.weights, *model.optimizer.variables]
        kept += [v for m in model.metrics for v in m.variables]
        assert {v.device for v in kept} == {GPU}
        assert graphnn.debugging.copies() == []


def test_fit_line_by_line(emulated_gpu: Any) -> None:
    history, predictions, _ = _trained("/CPU:0", run_eagerly=True)
    found, outputs, _ = _trained("/GPU:0", run_eagerly=True)
    np.testing.assert_allclose(found["loss"], history["loss"], rtol=2e-5)
    np.testing.assert_allclose(outputs, predictions, rtol=1e-4, atol=1e-5)


def test_elements_on_the_gpu(emulated_gpu: Any) -> None:
    with graphnn.device("/GPU:0"):
        seen = [x.device for x, _ in _data("ahead")["x"]]
        assert seen == [GPU] * 5
        losses = _trained("/GPU:0", "ahead")[0]["loss"]
    np.testing.assert_allclose(losses, _trained("/CPU:0", "dataset")[0]["loss"], rtol=2e-5)
    mixed = graphnn.data.Dataset.from_tensor_slices({"t": ["a", "b"], "n": [1, 2]})
    ready = mixed.apply(graphnn.data.experimental.copy_to_device("cuda:0"))
    first = next(iter(ready))
    assert first["n"].device == GPU and first["t"].device == "/device:CPU:0"
    kept = list(ready)
    assert [int(e["n"]) for e in kept] == [1, 2]


def test_a_position_in_elements_on_the_gpu(emulated_gpu: Any) -> None:
    dataset = _data("ahead")["x"]
    elements = dataset.iterator()
    next(elements), next(elements)
    position = elements.state()
    rest = [y.tolist() for _, y in elements]
    assert [y.tolist() for _, y in dataset.iterator(position)] == rest and len(rest) == 3


def test_no_step_of_an_epoch_waits(emulated_gpu: Any) -> None:
    class Watch(keras.callbacks.Callback):
        _takes_tensors = True

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if 2 <= batch:
                waits.append(list(emulated_gpu.waits))
            emulated_gpu.waits.clear()

    waits: list[list[str]] = []
    with graphnn.device("/GPU:0"):
        model = _model()
        model.fit(X[:64], Y[:64], batch_size=4, epochs=2, verbose=0, callbacks=[Watch()])
    # Pinned memory is written again only after its copy, which has ended long before.
    assert {why for step in waits for why in step} <= {"Event.synchronize"}


def test_a_model_made_elsewhere_keeps_its_metrics_with_it(emulated_gpu: Any) -> None:
    model = _model()  # its metrics are on the CPU
    with graphnn.device("/GPU:0"):
        model.fit(X, Y, verbose=0)
    assert {v.device for m in model.metrics for v in m.variables} == {GPU}
    model.fit(X, Y, verbose=0)  # outside of the context: where its weights are
    assert model.evaluate(X, Y, verbose=0)[0] > 0 and model.predict(X, verbose=0).shape == (70, 2)


def test_single_batches(emulated_gpu: Any) -> None:
    def losses(device: str) -> list[float]:
        with graphnn.device(device):
            model = _model()
            return [model.train_on_batch(X[:8], Y[:8])[0] for _ in range(3)]

    graphnn.debugging.forget_copies()
    np.testing.assert_allclose(losses("/GPU:0"), losses("/CPU:0"), rtol=2e-5)
    assert graphnn.debugging.copies() == []


def test_weights_are_saved_and_loaded(emulated_gpu: Any, tmp_path: Any) -> None:
    path = tmp_path / "model.keras"
    _, outputs, model = _trained("/GPU:0")
    model.save(path)
    loaded = keras.models.load_model(path)
    assert {v.device for v in loaded.weights} == {"/device:CPU:0"}
    np.testing.assert_allclose(loaded.predict(X, verbose=0), outputs, rtol=1e-4, atol=1e-5)
    with graphnn.device("/GPU:0"):
        again = keras.models.load_model(path)
        assert {v.device for v in again.weights} == {GPU}
        np.testing.assert_array_equal(again.predict(X, verbose=0), outputs)
    model.load_weights(path)
    assert {v.device for v in model.weights} == {GPU}


# ---- staging ------------------------------------------------------------------------------------


def test_batches_are_never_overwritten_too_early() -> None:
    """With work that waits until somebody asks, a missing wait would show as wrong numbers."""
    if reason := stand_in.why_not():
        pytest.skip(reason)
    with stand_in.emulated(lazy=True):
        backend = devices.gpu(0)
        stager, host = Stager(backend), np.zeros(1000, "float32")
        total = backend.upload(np.zeros(1000, "float32"))
        held = []
        for step in range(1, 12):
            host[:] = step  # the one buffer of the host, over and over
            (array,) = stager.send([host])
            total += array
            if step % 4 == 0:
                held.append(array)
            del array
        host[:] = -1
        assert backend.download(total)[0] == 66
        assert [float(backend.download(a)[0]) for a in held] == [4, 8]
        stager.close()


def test_a_batch_that_was_kept_is_read_before_its_memory_is_used_again() -> None:
    """A loop holds the batch before while the next one comes, and may use it once more."""
    if reason := stand_in.why_not():
        pytest.skip(reason)
    with stand_in.emulated(lazy=True):
        backend = devices.gpu(0)
        stager, seen = Stager(backend), backend.upload(np.zeros((12, 1000), "float32"))
        before = None
        for step in range(1, 12):
            (array,) = stager.send([np.full(1000, step, "float32")])
            stager.stream.synchronize()  # the copy is as early as it may be
            if before is not None:  # while the next one is the current batch
                seen[step - 1].data.copy_from_device_async(before.data, before.nbytes)
            before = array
            del array
        assert backend.download(seen)[1:11, 0].tolist() == list(range(1, 11))
        stager.close()


def test_a_copy_does_not_wait_for_the_last_step(emulated_gpu: Any) -> None:
    """The loop's variable holds each batch until the next one is there."""
    stager = Stager(devices.gpu(0))
    waited = []
    for step in range(8):
        (array,) = stager.send([np.full(64, step, "float32")])
        if step >= DEPTH:
            slot = next(s for s in stager._held if s.arrays[0] is array)
            waited.append(slot)
    assert len(set(map(id, waited))) == DEPTH


def test_memory_of_batches_is_used_again(emulated_gpu: Any) -> None:
    stager = Stager(devices.gpu(0))
    places = set()
    for step in range(12):
        (array,) = stager.send([np.full(64, step, "float32")])
        places.add(array.data.ptr)
        del array
    assert len(places) <= DEPTH
    assert stager.send([np.zeros((0, 3), "float32"), np.ones(2, "int32")])[1].get().tolist() == [
        1,
        1,
    ]


def test_batches_that_are_all_kept_arrive_whole() -> None:
    with stand_in.emulated(lazy=True):
        stager = Stager(devices.gpu(0))
        kept = [stager.send([np.full(1000, i, np.int32)])[0] for i in range(DEPTH + 5)]
        found = [devices.gpu(0).download(batch).tolist() for batch in kept]
        assert found == [[i] * 1000 for i in range(DEPTH + 5)]
        stager.close()
