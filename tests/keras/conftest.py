"""Each test starts with the same random stream."""

import pytest

import graphnn as tf


@pytest.fixture(autouse=True)
def seeded() -> None:
    tf.random.set_seed(0)
