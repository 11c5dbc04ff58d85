"""Callbacks: each documented hook in its order, and what each callback of the library does."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import callbacks, layers
from graphnn.keras.callbacks import base
from graphnn.runtime.errors import ArgumentError, StateError

X = np.linspace(-1, 1, 40, dtype="float32").reshape(20, 2)
Y = X.sum(1, keepdims=True)


def make_model(rate: float = 0.1) -> Any:
    tf.random.set_seed(0)
    model = keras.Sequential([layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"])
    return model


def fit(model: Any, *used: Any, epochs: int = 3, **settings: Any) -> Any:
    settings = {"verbose": 0, "batch_size": 10, "epochs": epochs} | settings
    return model.fit(X, Y, callbacks=list(used), **settings)


class Feed(callbacks.Callback):
    """Puts values into the logs of the epochs, as if they had been measured."""

    def __init__(self, values: Any, name: str = "val_loss") -> None:
        super().__init__()
        self.values, self.name = list(values), name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]


# ---- hooks ------------------------------------------------------------------------------------


class Spy(callbacks.Callback):
    """Notes each hook."""

    def __init__(self, notes: list[Any], name: str = "") -> None:
        super().__init__()
        self.notes, self.name = notes, name


def _noting(hook: str) -> Any:
    def note(self: Any, *args: Any) -> None:
        *numbers, logs = args
        assert isinstance(logs, dict) and self.model is not None
        self.notes.append((self.name + hook.removeprefix("on_"), *numbers))

    return note


for _hook in base.HOOKS:
    setattr(Spy, _hook, _noting(_hook))


def test_each_hook_in_its_order() -> None:
    notes: list[Any] = []
    model = make_model()
    fit(model, Spy(notes), epochs=2, validation_data=(X[:5], Y[:5]))
    batches = [(f"train_batch_{end}", b) for b in (0, 1) for end in ("begin", "end")]
    test = [("test_begin",), ("test_batch_begin", 0), ("test_batch_end", 0), ("test_end",)]
    wanted = [("train_begin",)]
    for epoch in (0, 1):
        wanted += [("epoch_begin", epoch), *batches, *test, ("epoch_end", epoch)]
    assert notes == [*wanted, ("train_end",)]
    notes.clear()
    model.evaluate(X[:5], Y[:5], verbose=0, callbacks=[Spy(notes)])
    assert notes == test
    notes.clear()
    model.predict(X[:5], verbose=0, callbacks=Spy(notes))
    batch = [("predict_batch_begin", 0), ("predict_batch_end", 0)]
    assert notes == [("predict_begin",), *batch, ("predict_end",)]


def test_several_callbacks_run_in_their_order() -> None:
    notes: list[Any] = []
    fit(make_model(), Spy(notes, "a "), Spy(notes, "b "), epochs=1)
    first, second = notes[::2], notes[1::2]
    assert [n[2:] for n, *_ in first] == [n[2:] for n, *_ in second]
    assert all(n.startswith("a ") for n, *_ in first) and all(
        n.startswith("b ") for n, *_ in second
    )


def test_backups_come_after_all_others(tmp_path: Path) -> None:
    run = base.CallbackList([callbacks.BackupAndRestore(tmp_path), callbacks.History()])
    assert [type(h.__self__).__name__ for h in run._hooks["on_epoch_end"]] == [
        "History",
        "BackupAndRestore",
    ]


def test_hooks_by_hand() -> None:
    notes: list[Any] = []
    run = callbacks.CallbackList([Spy(notes)], model=make_model(), params={"epochs": 1})
    run.on_train_begin()
    run.on_epoch_begin(0)
    run.on_batch_begin(3, {"a": 1})
    run.on_train_batch_end(3, logs={"loss": 1.0})
    run.on_epoch_end(0, {"loss": 1.0})
    assert [n for n, *_ in notes] == [
        "train_begin",
        "epoch_begin",
        "train_batch_begin",
        "train_batch_end",
        "epoch_end",
    ]
    with pytest.raises(AttributeError, match="on_lunch"):
        run.on_lunch()


def test_lambda_callbacks() -> None:
    seen: list[Any] = []
    hooks = {
        "on_train_begin": lambda logs: seen.append("train"),
        "on_batch_end": lambda batch, logs: seen.append((batch, type(logs["loss"]))),
        "on_epoch_end": lambda epoch, logs: seen.append(sorted(logs)),
    }
    fit(make_model(), callbacks.LambdaCallback(**hooks), epochs=1)
    assert seen == ["train", (0, float), (1, float), ["loss", "mae"]]


# ---- following a value ------------------------------------------------------------------------


def test_early_stopping() -> None:
    model = make_model()
    values = [3.0, 2.0, 2.5, 2.4, 1.0]
    stopping = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    kept: list[Any] = []
    keep = callbacks.LambdaCallback(on_epoch_end=lambda e, logs: kept.append(model.get_weights()))
    history = fit(model, Feed(values), keep, stopping, epochs=5)
    assert history.epoch == [0, 1, 2, 3] and stopping.stopped_epoch == 3
    assert stopping.best_epoch == 1 and stopping.best == 2.0
    for one, two in zip(model.get_weights(), kept[1], strict=True):
        np.testing.assert_array_equal(one, two)
    # Used again, it begins anew.
    assert fit(model, Feed(values), stopping, epochs=2).epoch == [0, 1]


@pytest.mark.parametrize(
    ("settings", "values", "epochs"),
    [
        ({"patience": 0}, [3, 2, 2, 1], 3),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.8, 2.7, 0], 2),
        ({"patience": 1, "mode": "max"}, [1, 2, 3, 3, 9], 4),
        ({"patience": 1, "monitor": "val_accuracy"}, [1, 2, 3, 3, 9], 4),
        ({"patience": 2, "baseline": 1.0}, [3, 2, 1.5, 1.2, 0], 2),
        ({"patience": 1, "start_from_epoch": 2}, [1, 2, 3, 4, 9], 4),
        ({"patience": 1}, [math.nan, math.nan, 1, 1], 2),
    ],
)
def test_when_early_stopping_stops(settings: Any, values: Any, epochs: int) -> None:
    name = settings.get("monitor", "val_loss")
    stopping = callbacks.EarlyStopping(**settings)
    history = fit(make_model(), Feed(values, name), stopping, epochs=len(values))
    assert len(history.epoch) == epochs


def test_a_value_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match=r"follows 'val_loss', but the logs hold loss, mae"):
        history = fit(make_model(), callbacks.EarlyStopping())
    assert len(history.epoch) == 3
    with pytest.raises(ArgumentError, match="mode='up'"):
        callbacks.EarlyStopping(mode="up")


def test_the_metric_says_which_way_is_better() -> None:
    model = make_model()
    fit(model, epochs=1)
    follow = callbacks.MonitorCallback("val_mae")
    follow.set_model(model)
    assert not follow._rising()
    model.metrics[1]._direction = "up"
    assert follow._rising()
    assert callbacks.MonitorCallback("val_top_k_categorical_accuracy")._rising()
    assert not callbacks.MonitorCallback("loss")._rising()


def test_reduce_on_plateau(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(1.0)
    plateau = callbacks.ReduceLROnPlateau(
        factor=0.1, patience=2, cooldown=1, min_lr=0.05, verbose=1
    )
    values = [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    history = fit(model, Feed(values), plateau, epochs=8)
    rates = history.history["learning_rate"]
    np.testing.assert_allclose(rates, [1, 1, 1, 0.1, 0.1, 0.05, 0.05, 0.05], rtol=1e-6)
    assert "Epoch 3: the learning rate is now 0.1" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match=r"factor=1\.5"):
        callbacks.ReduceLROnPlateau(factor=1.5)


def test_learning_rate_scheduler() -> None:
    model = make_model(1.0)
    by_both = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    assert fit(model, by_both).history["learning_rate"] == [0.5, 0.25, 0.125]
    by_epoch = callbacks.LearningRateScheduler(lambda epoch: 2.0 ** -(epoch + 1))
    assert fit(model, by_epoch).history["learning_rate"] == [0.5, 0.25, 0.125]
    with pytest.raises(ArgumentError, match="'fast' from the schedule for epoch 0"):
        fit(model, callbacks.LearningRateScheduler(lambda epoch: "fast"))


def test_terminate_on_nan(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(1e30)
    history = fit(model, callbacks.TerminateOnNaN(), epochs=50)
    assert len(history.epoch) < 5
    assert "training ends" in capsys.readouterr().out


# ---- files ------------------------------------------------------------------------------------


class Fake:
    """Stands where `save` and `save_weights` of a model are, and notes the calls."""

    def __init__(self, model: Any) -> None:
        self.saved: list[str] = []
        self.weights: list[str] = []
        model.__dict__["save"] = lambda path, overwrite: self.saved.append(str(path))
        model.__dict__["save_weights"] = lambda path, overwrite: self.weights.append(str(path))


def test_checkpoints_of_epochs(tmp_path: Path) -> None:
    model = make_model()
    fake = Fake(model)
    where = str(tmp_path / "deep" / "model_{epoch:02d}_{val_loss:.1f}")
    fit(model, Feed([3, 2, 4]), callbacks.ModelCheckpoint(where))
    names = [Path(p).name for p in fake.saved]
    assert names == ["model_01_3.0", "model_02_2.0", "model_03_4.0"]
    assert (tmp_path / "deep").is_dir() and not fake.weights
    weights = callbacks.ModelCheckpoint("w_{epoch}.weights.h5", save_weights_only=True)
    fit(model, weights)
    assert fake.weights == [f"w_{e}.weights.h5" for e in (1, 2, 3)]


def test_checkpoints_of_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model()
    fake = Fake(model)
    best = callbacks.ModelCheckpoint("{epoch}", save_best_only=True, verbose=1)
    fit(model, Feed([3, 2, 4, 1]), best, epochs=4)
    assert fake.saved == ["1", "2", "4"] and best.best == 1
    assert "Epoch 3: val_loss did not get better" in capsys.readouterr().out
    fake.saved.clear()
    fit(model, Feed([3, 0.5, 4, 1]), best, epochs=4)  # goes on with the best of the first run
    assert fake.saved == ["2"]
    fake.saved.clear()
    rising = {"save_best_only": True, "initial_value_threshold": 0.5, "mode": "max"}
    fit(model, Feed([0.4, 0.6, 0.5]), callbacks.ModelCheckpoint("{epoch}", **rising))
    assert fake.saved == ["2"]


def test_checkpoints_of_batches() -> None:
    model = make_model()
    fake = Fake(model)
    every = callbacks.ModelCheckpoint("{epoch}_{batch}_{loss:.0e}", save_freq=3)
    fit(model, every, batch_size=5, epochs=3)  # 4 batches in each of 3 epochs
    assert [p.split("_")[:2] for p in fake.saved] == [
        ["1", "3"],
        ["2", "2"],
        ["3", "1"],
        ["3", "4"],
    ]
    with pytest.raises(ArgumentError, match="'val_loss' is not known"):
        fit(model, callbacks.ModelCheckpoint("{val_loss}", save_freq=1))
    with pytest.raises(ArgumentError, match="save_freq='batch'"):
        callbacks.ModelCheckpoint("x", save_freq="batch")


def test_csv_logger(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.csv"
    history = fit(make_model(), callbacks.CSVLogger(path))
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch,loss,mae" and len(lines) == 4
    assert lines[2] == f"1,{history.history['loss'][1]},{history.history['mae'][1]}"
    fit(make_model(), callbacks.CSVLogger(path, append=True), epochs=1)
    assert len(path.read_text().splitlines()) == 5
    every_second = {"validation_data": (X, Y), "validation_freq": 2, "epochs": 2}
    fit(make_model(), callbacks.CSVLogger(path, separator=";"), **every_second)
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch;loss;mae;val_loss;val_mae" and lines[1].endswith("NA;NA")
    assert "NA" not in lines[2]


def test_displays_and_files_are_closed_after_an_error(tmp_path: Path) -> None:
    class Fail(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise RuntimeError("no")

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    bar = callbacks.ProgbarLogger(file=Screen())
    logger = callbacks.CSVLogger(tmp_path / "log.csv")
    with pytest.raises(RuntimeError, match="no"):
        fit(make_model(), Fail(), bar, logger)
    assert bar._bar is None and logger._file is None


def test_states_of_callbacks() -> None:
    class Own(callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.names, self.array = 3, {"a": [1.5]}, np.ones(2)
            self.function = print

    own = Own()
    state = own.get_state()
    assert set(state) == {"count", "names", "array"}
    own.count, own.names["a"] = 7, []
    own.set_state(state)
    assert own.count == 3 and own.names == {"a": [1.5]}
    run = base.CallbackList([Own(), callbacks.EarlyStopping(), Own()])
    run.callbacks[2].count = 9
    states = run.get_state()
    other = base.CallbackList([Own(), callbacks.TerminateOnNaN(), Own()])
    other.set_state(states)
    assert [c.count for c in (other.callbacks[0], other.callbacks[2])] == [3, 9]


# ---- running means of weights -----------------------------------------------------------------


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_means_of_weights_in_place_of_them(swap_on_epoch: bool) -> None:
    def trained(*used: Any) -> Any:
        tf.random.set_seed(0)
        model = keras.Sequential([layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
        history = fit(model, *used, validation_data=(X, Y), shuffle=False)
        return model, history.history

    seen: dict[str, list[Any]] = {"begin": [], "end": []}

    def note(when: str) -> Any:
        return lambda epoch, logs: seen[when].append((look.model.get_weights() or [None])[0])

    swap = callbacks.SwapEMAWeights(swap_on_epoch)
    look = callbacks.LambdaCallback(on_epoch_begin=note("begin"), on_epoch_end=note("end"))
    model, history = trained(swap, look)
    plain, without = trained()
    assert history["loss"] == without["loss"]  # training goes on with the weights themselves
    assert history["val_loss"] != without["val_loss"]
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), history["val_loss"][-1], rtol=1e-5)
    for one, two in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    same = [np.array_equal(b, e) for b, e in zip(seen["begin"][1:], seen["end"], strict=False)]
    assert same == [not swap_on_epoch] * 2


def test_means_need_an_optimizer_that_keeps_them() -> None:
    with pytest.raises(StateError, match="use_ema=True"):
        fit(make_model(), callbacks.SwapEMAWeights(), validation_data=(X, Y))
