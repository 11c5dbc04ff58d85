"""The hashes are those of TensorFlow: values from it and from the papers, for all lengths."""

from __future__ import annotations

import numpy as np
import pytest

from graphnn.keras.layers.preprocess_hash import buckets, farmhash64, siphash64


def documents(count: int) -> list[bytes]:
    return [bytes((7 * i + 13 * n) % 251 for i in range(n)) for n in range(count)]


def test_known_values() -> None:
    assert farmhash64([b"hello"])[0] == 0xB48BE5A931380CE8
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)  # the test vector of the paper
    assert siphash64([bytes(range(15))], key)[0] == 0xA129CA6149BE45E5


@pytest.mark.parametrize(
    ("salt", "expected"),
    [
        (None, [145282057, 495255, 181765]),
        ([133, 137], [148727744, 524640, 861144]),
    ],
)
def test_sums_of_tensorflow(salt: list[int] | None, expected: list[int]) -> None:
    found = buckets(documents(300), 1_000_003, salt)
    assert [int(found.sum()), int(found[64]), int(found[-1])] == expected


def test_strings_are_hashed_one_by_one() -> None:
    mixed = documents(150)[::-1] + documents(70)
    together = farmhash64(mixed)
    assert together.dtype == np.uint64
    np.testing.assert_array_equal(together, [farmhash64([d])[0] for d in mixed])
    assert farmhash64([]).shape == (0,)
