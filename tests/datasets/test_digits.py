"""The shipped digits: content, split, licence."""

import hashlib
from importlib.resources import files

import numpy as np

from graphnn.keras.datasets import digits

# Of all images, then all labels, in the stored order.
CONTENT = "428ad214e900fe9343f94d9fedc8a16d461db8cd1bc0f61eecf448b8c5f16b35"


def test_shapes_types_and_range() -> None:
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert x_train.shape == (1437, 8, 8)
    assert y_train.shape == (1437,)
    assert x_test.shape == (360, 8, 8)
    assert y_test.shape == (360,)
    assert all(a.dtype == np.uint8 for a in (x_train, y_train, x_test, y_test))
    assert (x_train.min(), x_train.max()) == (0, 16)


def test_content_is_the_published_one() -> None:
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    images, labels = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == CONTENT
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(labels).tolist() == counts


def test_each_class_is_in_both_parts() -> None:
    (_, y_train), (_, y_test) = digits.load_data()
    assert np.bincount(y_train).min() > 120
    assert np.bincount(y_test).min() > 20


def test_calls_do_not_share_memory() -> None:
    (first, _), (test, _) = digits.load_data()
    first[:] = 0
    test[:] = 0
    (again, _), (test_again, _) = digits.load_data()
    assert again.max() == test_again.max() == 16


def test_file_is_small_and_states_its_licence() -> None:
    folder = files("graphnn.keras.datasets")
    assert len(folder.joinpath("digits.npz").read_bytes()) < 100_000
    note = folder.joinpath("digits.txt").read_text(encoding="utf-8")
    for words in ("CC BY 4.0", "Alpaydin", "Kaynak", "UCI Machine Learning Repository"):
        assert words in note
        assert words in (digits.load_data.__doc__ or "").replace("\n    ", " ")
