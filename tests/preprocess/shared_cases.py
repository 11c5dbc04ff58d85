"""Models of one preprocessing layer, for graphnn and for real Keras: name -> how it is made."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

RNG = np.random.default_rng(5)
WORDS = np.array(["apple", "pear", "fig", "Plum", "kiwi", "äpfel", "日本", ""])
SEEN = RNG.choice(WORDS[:7], (40, 3))
ASKED = RNG.choice([*WORDS, "new", "newer"], (9, 3))
NUMBERS = RNG.integers(-4, 6, (40, 3)).astype("int64")
KEYS = RNG.integers(-9, 12, (9, 3)).astype("int64")
TEXT = np.array(
    [" ".join(RNG.choice([*WORDS, "the,", "(end)"], n)) for n in RNG.integers(1, 9, 40)]
)
NEW = np.array(["", "The apple!", "fig  fig pear", "unknown words, new", "äpfel 日本 Plum", "end"])
FLOATS = RNG.normal(size=(40, 3)).astype("float32")
CATEGORIES = RNG.integers(0, 6, (9, 3)).astype("int64")


class Case(NamedTuple):
    """One layer. data: for adapt. exact: whether results must be equal to the last bit."""

    layer: str
    settings: dict[str, Any]
    inputs: Any
    data: Any = None
    exact: bool = True


def lookups(layer: str, known: list[Any], data: Any, asked: Any) -> dict[str, Case]:
    mask = known[0]
    few = data[np.isin(data, known)].reshape(-1, 1)  # where unknown values are an error
    kinds: dict[str, tuple[dict[str, Any], Any, Any]] = {
        "adapted": ({}, asked, data),
        "limited": ({"max_tokens": 4}, asked, data),
        "given": ({"vocabulary": known}, asked, None),
        "mask": ({"mask_token": mask}, asked, data),
        "three unknown": ({"num_oov_indices": 3}, asked, data),
        "none unknown": ({"num_oov_indices": 0, "vocabulary": known}, few[:9], None),
        "one hot": ({"output_mode": "one_hot"}, asked[:, :1], data),
        "multi hot": ({"output_mode": "multi_hot", "mask_token": mask}, asked, data),
        "count": ({"output_mode": "count", "num_oov_indices": 2}, asked, data),
        "padded": (
            {"output_mode": "count", "max_tokens": 20, "pad_to_max_tokens": True},
            asked,
            data,
        ),
        "tf idf": ({"output_mode": "tf_idf"}, asked, data),
        "tf idf given": (
            {
                "output_mode": "tf_idf",
                "vocabulary": known,
                "idf_weights": [0.5 + i for i in range(len(known))],
            },
            asked,
            None,
        ),
        "inverse": ({"invert": True, "vocabulary": known, "mask_token": None}, CATEGORIES, None),
    }
    return {
        f"{layer} {name}": Case(layer, settings, inputs, adapted, "tf idf" not in name)
        for name, (settings, inputs, adapted) in kinds.items()
    }


def plain(layer: str, kinds: dict[str, tuple[Any, ...]], exact: bool = True) -> dict[str, Case]:
    return {f"{layer} {name}": Case(layer, *kind, exact=exact) for name, kind in kinds.items()}


CASES: dict[str, Case] = {
    **lookups("StringLookup", ["fig", "apple", "日本"], SEEN, ASKED),
    "StringLookup salted": Case("StringLookup", {"num_oov_indices": 4}, ASKED, SEEN),
    **lookups("IntegerLookup", [3, -2, 0], NUMBERS, KEYS),
    **plain(
        "TextVectorization",
        {
            "words": ({}, NEW, TEXT),
            "length": ({"output_sequence_length": 4}, NEW, TEXT),
            "limited": ({"max_tokens": 5}, NEW, TEXT),
            "lower": ({"standardize": "lower"}, NEW, TEXT),
            "strip": ({"standardize": "strip_punctuation"}, NEW, TEXT),
            "as it is": ({"standardize": None}, NEW, TEXT),
            "characters": ({"split": "character"}, NEW, TEXT),
            "unsplit": ({"split": None}, NEW[:, None], TEXT[:, None]),
            "pairs": ({"ngrams": 2}, NEW, TEXT),
            "triples": ({"ngrams": (1, 3), "output_mode": "count"}, NEW, TEXT),
            "multi hot": ({"output_mode": "multi_hot"}, NEW, TEXT),
            "count": (
                {"output_mode": "count", "max_tokens": 30, "pad_to_max_tokens": True},
                NEW,
                TEXT,
            ),
            "given": ({"vocabulary": ["fig", "end", "the"]}, NEW),
        },
    ),
    **plain(
        "TextVectorization",
        {
            "tf idf": ({"output_mode": "tf_idf"}, NEW, TEXT),
            "tf idf given": (
                {"output_mode": "tf_idf", "vocabulary": ["fig", "the"], "idf_weights": [0.5, 2.0]},
                NEW,
            ),
        },
        exact=False,
    ),
    **plain(
        "Hashing",
        {
            "strings": ({"num_bins": 7}, ASKED),
            "integers": ({"num_bins": 5}, KEYS),
            "salt": ({"num_bins": 11, "salt": 3}, ASKED),
            "two salts": ({"num_bins": 11, "salt": [133, 137]}, ASKED),
            "mask": ({"num_bins": 4, "mask_value": "fig"}, ASKED),
            "one hot": ({"num_bins": 4, "output_mode": "one_hot"}, ASKED[:, :1]),
            "multi hot": ({"num_bins": 6, "output_mode": "multi_hot"}, ASKED),
            "count": ({"num_bins": 6, "output_mode": "count", "salt": 1}, KEYS),
        },
    ),
    **plain(
        "CategoryEncoding",
        {
            "multi hot": ({"num_tokens": 6}, CATEGORIES),
            "one hot": ({"num_tokens": 6, "output_mode": "one_hot"}, CATEGORIES[:, :1]),
            "count": ({"num_tokens": 7, "output_mode": "count"}, CATEGORIES),
        },
    ),
    **plain(
        "Discretization",
        {
            "adapted": ({"num_bins": 4}, FLOATS[:9], FLOATS),
            "coarse": ({"num_bins": 3, "epsilon": 0.1}, FLOATS[:9], FLOATS),
            "given": ({"bin_boundaries": [-1.0, 0.0, 0.5]}, FLOATS[:9]),
            "one hot": (
                {"bin_boundaries": [-1.0, 0.5], "output_mode": "one_hot"},
                FLOATS[:9, :1],
            ),
            "multi hot": ({"num_bins": 5, "output_mode": "multi_hot"}, FLOATS[:9], FLOATS),
            "count": ({"num_bins": 5, "output_mode": "count"}, FLOATS[:9], FLOATS),
        },
    ),
    **plain(
        "Normalization",
        {
            "columns": ({}, FLOATS[:9], FLOATS),
            "all": ({"axis": None}, FLOATS[:9], FLOATS),
            "two axes": ({"axis": (1, 2)}, FLOATS[:8].reshape(4, 2, 3), FLOATS.reshape(-1, 2, 3)),
            "given": ({"mean": 3.0, "variance": 2.0}, FLOATS[:9]),
            "rows": ({"mean": [1.0, 2.0, 3.0], "variance": [4.0, 1.0, 9.0]}, FLOATS[:9]),
            "inverse": ({"invert": True}, FLOATS[:9], FLOATS),
        },
        exact=False,
    ),
}


def build(keras: Any, case: Case) -> Any:
    """A model of the layer, adapted."""
    layer = getattr(keras.layers, case.layer)(**case.settings)
    if case.data is not None:
        layer.adapt(case.data)
    kind = "string" if case.inputs.dtype.kind == "U" else case.inputs.dtype.name
    return keras.Sequential([keras.Input(case.inputs.shape[1:], dtype=kind), layer])


def outputs(model: Any, case: Case, tensor: Any) -> Any:
    """What the model makes of the inputs; text as an array of str. tensor: makes one of text."""
    inputs = tensor(case.inputs) if case.inputs.dtype.kind == "U" else case.inputs
    found = np.asarray(model(inputs))
    if found.dtype.kind in "biuf":
        return found
    flat = [t.decode() if isinstance(t, bytes) else str(t) for t in found.reshape(-1)]
    return np.array(flat).reshape(found.shape)
