"""Each metric against a plain computation over all data: in parts, weighted, compiled, in fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import losses
from graphnn.keras import metrics as M
from graphnn.keras.masks import set_mask
from graphnn.runtime.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(5)
N, C = 40, 5
LABELS = RNG.integers(0, C, N)
HOT = np.eye(C)[LABELS]
LOGITS = RNG.normal(size=(N, C)) + HOT
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
PRED = LOGITS.argmax(-1)
BITS = RNG.integers(0, 2, N)
SCORE = np.round(np.clip(RNG.normal(0.5, 0.25, N) + 0.2 * (BITS - 0.5), 0.01, 0.99), 2)
MANY = RNG.integers(0, 2, (N, 3))
MANY_SCORE = np.clip(RNG.random((N, 3)) * 0.7 + MANY * 0.3, 0, 1)
REAL = RNG.normal(size=(N, 3))
GUESS = REAL + RNG.normal(size=(N, 3)) * 0.5
WEIGHTS = RNG.integers(0, 4, N).astype("float64")


def counts(y: Any, p: Any, t: float, w: Any) -> tuple[float, float, float, float]:
    """tp, fp, tn, fn at one threshold."""
    w = np.broadcast_to(w.reshape(w.shape + (1,) * (p.ndim - w.ndim)), p.shape)
    on, yes = p > t, y > 0
    return tuple(float(w[m].sum()) for m in (on & yes, on & ~yes, ~on & ~yes, ~on & yes))  # type: ignore[return-value]


def precision(y: Any, p: Any, w: Any, t: float = 0.5) -> float:
    tp, fp, _, _ = counts(y, p, t, w)
    return tp / (tp + fp)


def recall(y: Any, p: Any, w: Any, t: float = 0.5) -> float:
    tp, _, _, fn = counts(y, p, t, w)
    return tp / (tp + fn)


CUTS = [-1e-7, *[(i + 1) / 199 for i in range(198)], 1 + 1e-7]


def curve(y: Any, p: Any, w: Any, cuts: Any = CUTS) -> Any:
    return np.array([counts(y, p, t, w) for t in cuts]).T


def safe(a: Any, b: Any) -> Any:
    return np.where(b == 0, 0, a / np.where(b == 0, 1, b))


def roc(y: Any, p: Any, w: Any, how: Callable[..., Any], cuts: Any = CUTS) -> float:
    tp, fp, tn, fn = curve(y, p, w, cuts)
    x, h = safe(fp, fp + tn), safe(tp, tp + fn)
    return float(((x[:-1] - x[1:]) * how(h[:-1], h[1:])).sum())


def pr(y: Any, p: Any, w: Any, how: Callable[..., Any]) -> float:
    tp, fp, _, fn = curve(y, p, w)
    x, h = safe(tp, tp + fn), safe(tp, tp + fp)
    return float(((x[:-1] - x[1:]) * how(h[:-1], h[1:])).sum())


def pr_interpolated(y: Any, p: Any, w: Any) -> float:
    """The integral of tp / (tp + fp) over tp, both straight in between, in 2000 steps."""
    tp, fp, _, fn = curve(y, p, w)
    area = 0.0
    for k in range(len(tp) - 1):
        s = (np.arange(2000) + 0.5) / 2000
        t, f = tp[k + 1] + s * (tp[k] - tp[k + 1]), fp[k + 1] + s * (fp[k] - fp[k + 1])
        area += float(np.mean(safe(t, t + f)) * (tp[k] - tp[k + 1]))
    return area / (tp + fn)[0]


def mean2(a: Any, b: Any) -> Any:
    return (a + b) / 2


def best(wanted: Any, kept: Any, least: float) -> float:
    return float(np.where(kept >= least, wanted, 0).max())


def rates(y: Any, p: Any, w: Any) -> dict[str, Any]:
    tp, fp, tn, fn = curve(y, p, w, [0.0, *CUTS[1:-1], 1.0])
    return {
        "recall": safe(tp, tp + fn),
        "precision": safe(tp, tp + fp),
        "specificity": safe(tn, tn + fp),
    }


def weighted_mean(each: Any, w: Any) -> float:
    each = each.reshape(len(each), -1).mean(-1)
    return float((each * w).sum() / w.sum())


def top(k: int) -> Any:
    own = P[np.arange(N), LABELS][:, None]
    return ((own < P).sum(-1) < k).astype(float)


def top_k_mask(p: Any, k: int) -> Any:
    best = np.argsort(-p, axis=-1, kind="stable")[:, :k]
    mask = np.zeros(p.shape, bool)
    np.put_along_axis(mask, best, True, axis=-1)
    return mask.astype(float)


def f_beta(y: Any, on: Any, w: Any, beta: float, axis: Any = 0) -> Any:
    w = w[:, None]
    tp, fp, fn = ((m * w).sum(axis) for m in (y * on, (1 - y) * on, y * (1 - on)))
    a, b = tp / (tp + fp), tp / (tp + fn)
    return (1 + beta**2) * a * b / (beta**2 * a + b)


def r2(w: Any) -> Any:
    w = w[:, None]
    middle = (REAL * w).sum(0) / w.sum()
    return 1 - (w * (REAL - GUESS) ** 2).sum(0) / (w * (REAL - middle) ** 2).sum(0)


def matrix(w: Any, ignore: int | None = None) -> Any:
    found = np.zeros((C, C))
    for a, b, v in zip(LABELS, PRED, w, strict=True):
        found[a, b] += v * (a != ignore)
    return found


def ious(w: Any, ignore: int | None = None) -> Any:
    m = matrix(w, ignore)
    both = np.diag(m)
    return both, m.sum(0) + m.sum(1) - both


def mean_iou(w: Any, ids: list[int], ignore: int | None = None) -> float:
    both, either = ious(w, ignore)
    return float(np.mean([both[i] / either[i] for i in ids if either[i]]))


def accuracy_of(hits: Any) -> Callable[[Any], float]:
    return lambda w: weighted_mean(np.asarray(hits, float), w)


def loss_of(fn: Any, y: Any, p: Any) -> Callable[[Any], float]:
    return lambda w: weighted_mean(fn(tf.constant(y), tf.constant(p)).numpy(), w)


Case = tuple[Callable[[], Any], Any, Any, Callable[[Any], Any]]
CASES: dict[str, Case] = {
    "accuracy": (M.Accuracy, LABELS, PRED, accuracy_of(LABELS == PRED)),
    "binary": (M.BinaryAccuracy, MANY, MANY_SCORE, accuracy_of((MANY_SCORE > 0.5) == MANY)),
    "categorical": (M.CategoricalAccuracy, HOT, P, accuracy_of(LABELS == PRED)),
    "sparse": (M.SparseCategoricalAccuracy, LABELS, P, accuracy_of(LABELS == PRED)),
    "top 2": (lambda: M.TopKCategoricalAccuracy(k=2), HOT, P, accuracy_of(top(2))),
    "sparse top 3": (lambda: M.SparseTopKCategoricalAccuracy(k=3), LABELS, P, accuracy_of(top(3))),
    "sparse top ids": (
        lambda: M.SparseTopKCategoricalAccuracy(k=3, from_sorted_ids=True),
        LABELS,
        np.argsort(-P, axis=-1),
        accuracy_of(top(3)),
    ),
    "mse": (M.MeanSquaredError, REAL, GUESS, accuracy_of((REAL - GUESS) ** 2)),
    "rmse": (
        M.RootMeanSquaredError,
        REAL,
        GUESS,
        lambda w: weighted_mean((REAL - GUESS) ** 2, w) ** 0.5,
    ),
    "mae": (M.MeanAbsoluteError, REAL, GUESS, accuracy_of(np.abs(REAL - GUESS))),
    "mape": (
        M.MeanAbsolutePercentageError,
        REAL,
        GUESS,
        accuracy_of(100 * np.abs((REAL - GUESS) / REAL)),
    ),
    "msle": (
        M.MeanSquaredLogarithmicError,
        P,
        P[::-1],
        accuracy_of((np.log1p(P) - np.log1p(P[::-1])) ** 2),
    ),
    "logcosh": (M.LogCoshError, REAL, GUESS, accuracy_of(np.log(np.cosh(REAL - GUESS)))),
    "cosine": (
        M.CosineSimilarity,
        REAL,
        GUESS,
        accuracy_of(
            (REAL * GUESS).sum(-1) / np.linalg.norm(REAL, axis=-1) / np.linalg.norm(GUESS, axis=-1)
        ),
    ),
    "pearson": (
        M.PearsonCorrelation,
        P,
        LOGITS,
        accuracy_of([np.corrcoef(a, b)[0, 1] for a, b in zip(P, LOGITS, strict=True)]),
    ),
    "concordance": (
        M.ConcordanceCorrelation,
        REAL,
        GUESS,
        accuracy_of(
            2
            * (
                (REAL - REAL.mean(-1, keepdims=True)) * (GUESS - GUESS.mean(-1, keepdims=True))
            ).mean(-1)
            / (REAL.var(-1) + GUESS.var(-1) + (REAL.mean(-1) - GUESS.mean(-1)) ** 2)
        ),
    ),
    "hinge": (M.Hinge, MANY, GUESS, loss_of(losses.hinge, MANY, GUESS)),
    "squared hinge": (M.SquaredHinge, MANY, GUESS, loss_of(losses.squared_hinge, MANY, GUESS)),
    "categorical hinge": (M.CategoricalHinge, HOT, P, loss_of(losses.categorical_hinge, HOT, P)),
    "kl": (M.KLDivergence, P[::-1], P, loss_of(losses.kl_divergence, P[::-1], P)),
    "poisson": (M.Poisson, HOT, P, loss_of(losses.poisson, HOT, P)),
    "bce": (M.BinaryCrossentropy, HOT, P, loss_of(losses.binary_crossentropy, HOT, P)),
    "cce": (
        lambda: M.CategoricalCrossentropy(from_logits=True),
        HOT,
        LOGITS,
        accuracy_of(-np.log(P[np.arange(N), LABELS])),
    ),
    "sce": (
        M.SparseCategoricalCrossentropy,
        LABELS,
        P,
        accuracy_of(-np.log(P[np.arange(N), LABELS])),
    ),
    "tp": (M.TruePositives, BITS, SCORE, lambda w: counts(BITS, SCORE, 0.5, w)[0]),
    "fp": (
        lambda: M.FalsePositives([0.3, 0.6]),
        BITS,
        SCORE,
        lambda w: [counts(BITS, SCORE, t, w)[1] for t in (0.3, 0.6)],
    ),
    "tn": (M.TrueNegatives, MANY, MANY_SCORE, lambda w: counts(MANY, MANY_SCORE, 0.5, w)[2]),
    "fn even": (
        lambda: M.FalseNegatives([0.0, 0.25, 0.5, 0.75, 1.0]),
        BITS,
        SCORE,
        lambda w: [counts(BITS, SCORE, t, w)[3] for t in (0.0, 0.25, 0.5, 0.75, 1.0)],
    ),
    "precision": (M.Precision, BITS, SCORE, lambda w: precision(BITS, SCORE, w)),
    "recall": (M.Recall, MANY, MANY_SCORE, lambda w: recall(MANY, MANY_SCORE, w)),
    "recalls": (
        lambda: M.Recall(thresholds=[0.2, 0.8]),
        BITS,
        SCORE,
        lambda w: [recall(BITS, SCORE, w, t) for t in (0.2, 0.8)],
    ),
    "precision top 2": (
        lambda: M.Precision(top_k=2),
        HOT,
        P,
        lambda w: precision(HOT, top_k_mask(P, 2), w),
    ),
    "recall of a class": (
        lambda: M.Recall(class_id=1, thresholds=0.3),
        HOT,
        P,
        lambda w: recall(HOT[:, 1], P[:, 1], w, 0.3),
    ),
    "recall top of a class": (
        lambda: M.Recall(class_id=1, top_k=3),
        HOT,
        P,
        lambda w: recall(HOT[:, 1], top_k_mask(P, 3)[:, 1], w),
    ),
    "auc": (M.AUC, BITS, SCORE, lambda w: roc(BITS, SCORE, w, mean2)),
    "auc minoring": (
        lambda: M.AUC(summation_method="minoring"),
        BITS,
        SCORE,
        lambda w: roc(BITS, SCORE, w, np.minimum),
    ),
    "auc majoring": (
        lambda: M.AUC(summation_method="majoring"),
        BITS,
        SCORE,
        lambda w: roc(BITS, SCORE, w, np.maximum),
    ),
    "auc thresholds": (
        lambda: M.AUC(thresholds=[0.2, 0.45, 0.5, 0.9]),
        BITS,
        SCORE,
        lambda w: roc(BITS, SCORE, w, mean2, [-1e-7, 0.2, 0.45, 0.5, 0.9, 1 + 1e-7]),
    ),
    "auc logits": (
        lambda: M.AUC(from_logits=True),
        BITS,
        np.log(SCORE / (1 - SCORE)) + 1e-4,
        lambda w: roc(BITS, SCORE + 1e-6, w, mean2),
    ),
    "pr": (
        lambda: M.AUC(curve="PR"),
        BITS,
        SCORE,
        lambda w: pr_interpolated(BITS, SCORE, w),
    ),
    "pr minoring": (
        lambda: M.AUC(curve="PR", summation_method="minoring"),
        BITS,
        SCORE,
        lambda w: pr(BITS, SCORE, w, np.minimum),
    ),
    "multi label": (
        lambda: M.AUC(multi_label=True),
        MANY,
        MANY_SCORE,
        lambda w: np.mean([roc(MANY[:, k], MANY_SCORE[:, k], w, mean2) for k in range(3)]),
    ),
    "multi label weights": (
        lambda: M.AUC(multi_label=True, num_labels=3, label_weights=[1, 2, 3]),
        MANY,
        MANY_SCORE,
        lambda w: np.average(
            [roc(MANY[:, k], MANY_SCORE[:, k], w, mean2) for k in range(3)], weights=[1, 2, 3]
        ),
    ),
    "multi label thresholds": (
        lambda: M.AUC(multi_label=True, thresholds=[0.3, 0.5]),
        MANY,
        MANY_SCORE,
        lambda w: np.mean(
            [
                roc(MANY[:, k], MANY_SCORE[:, k], w, mean2, [-1e-7, 0.3, 0.5, 1 + 1e-7])
                for k in range(3)
            ]
        ),
    ),
    "sensitivity": (
        lambda: M.SensitivityAtSpecificity(0.6),
        BITS,
        SCORE,
        lambda w: best(rates(BITS, SCORE, w)["recall"], rates(BITS, SCORE, w)["specificity"], 0.6),
    ),
    "specificity": (
        lambda: M.SpecificityAtSensitivity(0.6),
        BITS,
        SCORE,
        lambda w: best(rates(BITS, SCORE, w)["specificity"], rates(BITS, SCORE, w)["recall"], 0.6),
    ),
    "precision at": (
        lambda: M.PrecisionAtRecall(0.6),
        BITS,
        SCORE,
        lambda w: best(rates(BITS, SCORE, w)["precision"], rates(BITS, SCORE, w)["recall"], 0.6),
    ),
    "recall at": (
        lambda: M.RecallAtPrecision(0.6),
        BITS,
        SCORE,
        lambda w: best(rates(BITS, SCORE, w)["recall"], rates(BITS, SCORE, w)["precision"], 0.6),
    ),
    "f1": (
        lambda: M.F1Score(threshold=0.5),
        MANY,
        MANY_SCORE,
        lambda w: f_beta(MANY, MANY_SCORE > 0.5, w, 1.0),
    ),
    "f1 micro": (
        lambda: M.F1Score(average="micro", threshold=0.5),
        MANY,
        MANY_SCORE,
        lambda w: f_beta(MANY, MANY_SCORE > 0.5, w, 1.0, None),
    ),
    "f2 macro": (
        lambda: M.FBetaScore(average="macro", beta=2.0),
        HOT,
        P,
        lambda w: f_beta(HOT, top_k_mask(P, 1), w, 2.0).mean(),
    ),
    "f1 weighted": (
        lambda: M.F1Score(average="weighted"),
        HOT,
        P,
        lambda w: np.average(
            f_beta(HOT, top_k_mask(P, 1), w, 1.0), weights=(HOT * w[:, None]).sum(0)
        ),
    ),
    "r2": (M.R2Score, REAL, GUESS, lambda w: r2(w).mean()),
    "r2 each": (lambda: M.R2Score(class_aggregation=None), REAL, GUESS, r2),
    "iou": (
        lambda: M.IoU(C, [0, 2]),
        LABELS,
        PRED,
        lambda w: mean_iou(w, [0, 2]),
    ),
    "mean iou": (
        lambda: M.MeanIoU(C, ignore_class=1, sparse_y_pred=False),
        LABELS,
        P,
        lambda w: mean_iou(w, list(range(C)), 1),
    ),
    "one-hot iou": (
        lambda: M.OneHotIoU(C, [3]),
        HOT,
        P,
        lambda w: mean_iou(w, [3]),
    ),
    "one-hot mean iou": (
        lambda: M.OneHotMeanIoU(C, sparse_y_pred=True),
        HOT,
        PRED,
        lambda w: mean_iou(w, list(range(C))),
    ),
}
LOOSE = {"pr": 2e-4}


def single(array: Any) -> Any:
    return tf.constant(array.astype("int64" if array.dtype.kind == "i" else "float32"))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_values(name: str, compiled: bool) -> None:
    make, y, p, expected = CASES[name]
    metric = make()
    assert not metric.result().numpy().any()

    def update(y: Any, p: Any, w: Any = None) -> None:
        metric.update_state(y, p, w)

    call = tf.function(update) if compiled else update
    y, p, w = single(y), single(p), single(WEIGHTS)
    tolerance = {"rtol": LOOSE.get(name, 2e-5), "atol": 1e-6}
    for rows in (slice(0, 15), slice(15, None)):
        call(y[rows], p[rows])
    np.testing.assert_allclose(metric.result().numpy(), expected(np.ones(N)), **tolerance)
    metric.reset_state()
    assert not metric.result().numpy().any()
    for rows in (slice(0, 15), slice(15, None)):
        call(y[rows], p[rows], w[rows])
    np.testing.assert_allclose(metric.result().numpy(), expected(WEIGHTS), **tolerance)


@pytest.mark.parametrize("name", CASES)
def test_configs(name: str) -> None:
    metric = CASES[name][0]()
    config = M.serialize(metric)
    assert config["module"] == "keras.metrics" and config["class_name"] == type(metric).__name__
    assert M.deserialize(config).get_config() == metric.get_config()


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["compiled", "eager"])
def test_all_in_one_fit(run_eagerly: bool) -> None:
    used = ("auc", "precision", "recall top of a class", "f1 micro", "tp", "top 2", "f2 macro")
    used = tuple(n for n in used if n not in ("auc", "precision", "tp"))
    model = keras.Sequential([keras.layers.Dense(C, activation="softmax")])
    metrics = [CASES[n][0]() for n in used if n != "f1 micro"]
    metrics += [M.AUC(name="auc"), M.AUC(multi_label=True, name="by_label"), "mae", "accuracy"]
    model.compile("sgd", "categorical_crossentropy", metrics, run_eagerly=run_eagerly)
    x, y = RNG.normal(size=(50, 3)).astype("float32"), np.eye(C)[RNG.integers(0, C, 50)]
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    found = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    p = model.predict(x, verbose=0)
    for metric in (M.AUC(name="auc"), M.AUC(multi_label=True, name="by_label")):
        np.testing.assert_allclose(found[metric.name], float(metric(y, p)), rtol=1e-5)
    np.testing.assert_allclose(found["mae"], np.abs(y - p).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], (p.argmax(-1) == y.argmax(-1)).mean(), rtol=1e-5)
    macro = next(m for m in metrics if isinstance(m, M.FBetaScore))
    again = M.deserialize(M.serialize(macro))
    np.testing.assert_allclose(found[macro.name], float(again(y, p)), rtol=1e-4)


def test_masked_means() -> None:
    p = single(P)
    set_mask(p, tf.constant(WEIGHTS > 0))
    metric = M.SparseCategoricalAccuracy()
    metric.update_state(single(LABELS), p)
    kept = WEIGHTS > 0
    np.testing.assert_allclose(float(metric.result()), (LABELS == PRED)[kept].mean(), rtol=1e-6)
    metric.reset_state()
    metric.update_state(single(LABELS), p, sample_weight=single(WEIGHTS))
    expected = ((LABELS == PRED) * WEIGHTS).sum() / WEIGHTS.sum()
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-6)


def test_predictions_at_the_ends_and_on_thresholds() -> None:
    p = np.array([0.0, 0.25, 0.5, 1.0, 1.0])
    y = np.array([0, 1, 0, 1, 0])
    metric = M.TruePositives(thresholds=[0.0, 0.25, 0.5, 0.75, 1.0])
    assert metric(y, p).numpy().tolist() == [2.0, 1.0, 1.0, 1.0, 0.0]
    assert M.FalsePositives(0.0)(y, p).numpy() == 2.0
    metric = M.AUC(num_thresholds=3)
    metric.update_state(y, p)
    assert metric.true_positives.numpy().tolist() == [2.0, 1.0, 0.0]
    assert metric.false_positives.numpy().tolist() == [3.0, 1.0, 0.0]


def test_top_k_ties_and_nan() -> None:
    p = [[0.4, 0.4, 0.2], [float("nan"), 0.5, 0.5]]
    assert M.sparse_top_k_categorical_accuracy([1, 0], p, k=1).numpy().tolist() == [1.0, 0.0]


def test_metrics_in_metrics() -> None:
    class Both(M.Metric):
        def __init__(self) -> None:
            super().__init__(name="both")
            self.low, self.high = M.Mean(), M.Sum()

        def update_state(self, values: Any) -> None:
            self.low.update_state(values)
            self.high.update_state(values)

        def result(self) -> Any:
            return {"low": self.low.result(), "high": self.high.result()}

    metric = Both()
    metric.update_state([1.0, 3.0])
    assert [float(v) for v in metric.result().values()] == [2.0, 4.0]
    assert len(metric.variables) == 3
    metric.reset_state()
    assert float(metric.result()["high"]) == 0.0


def test_names() -> None:
    for name, cls in (
        ("mse", M.MeanSquaredError),
        ("mae", M.MeanAbsoluteError),
        ("bce", M.BinaryCrossentropy),
        ("auc", M.AUC),
        ("precision", M.Precision),
        ("top_k_categorical_accuracy", M.TopKCategoricalAccuracy),
        ("binary_accuracy", M.BinaryAccuracy),
    ):
        assert type(M.get(name)) is cls


def test_errors() -> None:
    with pytest.raises(ArgumentError, match="0 to 1"):
        M.Precision(thresholds=1.5)
    with pytest.raises(ArgumentError, match="curve='DET'"):
        M.AUC(curve="DET")
    with pytest.raises(ArgumentError, match="num_labels"):
        M.AUC(num_labels=3)
    with pytest.raises(ArgumentError, match="specificity=2"):
        M.SensitivityAtSpecificity(2)
    with pytest.raises(ShapeError, match="class_id"):
        M.Recall(class_id=1)([1.0], [0.5])
    with pytest.raises(ShapeError, match="examples, outputs"):
        M.F1Score()([1.0], [0.5])
    with pytest.raises(ArgumentError, match="target class 3"):
        M.IoU(3, [3])
    with pytest.raises(ArgumentError, match="average"):
        M.FBetaScore(average="both")
