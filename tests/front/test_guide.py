"""The guide's snippets on Variables and GradientTape, with only the imports changed."""

import numpy as np

import graphnn as tf


def test_variables() -> None:
    initial_value = tf.random.normal(shape=(2, 2))
    a = tf.Variable(initial_value)
    np.testing.assert_array_equal(a.numpy(), initial_value.numpy())
    new_value = tf.random.normal(shape=(2, 2))
    a.assign(new_value)
    np.testing.assert_array_equal(a.numpy(), new_value.numpy())
    added_value = tf.random.normal(shape=(2, 2))
    a.assign_add(added_value)
    np.testing.assert_array_equal(a.numpy(), (new_value + added_value).numpy())
    a.assign_sub(added_value)
    np.testing.assert_allclose(a.numpy(), new_value.numpy(), atol=1e-6)


def test_gradient_tape() -> None:
    a = tf.random.normal(shape=(2, 2))
    b = tf.random.normal(shape=(2, 2))

    with tf.GradientTape() as tape:
        tape.watch(a)  # Start recording the history of operations applied to `a`
        c = tf.sqrt(tf.square(a) + tf.square(b))  # Do some math using `a`
        # What's the gradient of `c` with respect to `a`?
        dc_da = tape.gradient(c, a)
        print(dc_da)
    x, y = a.numpy(), b.numpy()
    np.testing.assert_allclose(dc_da.numpy(), x / np.sqrt(x * x + y * y), rtol=1e-5)


def test_watched_variables_and_higher_orders() -> None:
    a = tf.random.normal(shape=(2, 2))
    b = tf.random.normal(shape=(2, 2))
    a = tf.Variable(a)

    with tf.GradientTape() as tape:
        c = tf.sqrt(tf.square(a) + tf.square(b))
        dc_da = tape.gradient(c, a)
        print(dc_da)
    x, y = a.numpy(), b.numpy()
    root = np.sqrt(x * x + y * y)
    np.testing.assert_allclose(dc_da.numpy(), x / root, rtol=1e-5)

    with tf.GradientTape() as outer_tape:
        with tf.GradientTape() as tape:
            c = tf.sqrt(tf.square(a) + tf.square(b))
            dc_da = tape.gradient(c, a)
        d2c_da2 = outer_tape.gradient(dc_da, a)
    np.testing.assert_allclose(d2c_da2.numpy(), y * y / root**3, rtol=1e-3, atol=1e-5)
