"""Programs: state in place, shared memory, sizes, checks, calls to the host, threads."""

from __future__ import annotations

import platform
import threading

import numpy as np
import pytest

from graphnn.compiler.codegen.program import Target
from graphnn.compiler.ops.core import HostCall
from graphnn.runtime.errors import OutOfRangeError
from graphnn.runtime.execute import MAX_INSTANCES
from tests.codegen.traced import ONE_THREAD, Variable, compiled, normal, run, titles


def test_new_values_are_written_in_place():
    v = Variable(normal(5))
    before, address = v.buffer.copy(), v.buffer.ctypes.data

    def function(t, x):
        t.assign(v, t.ops.subtract(t.read(v), t.ops.multiply(x, 0.5)))
        return t.ops.sum(x, axes=(0,))

    result = compiled(function, (5,))
    x = normal(5, seed=1)
    for _ in range(3):
        run(result, x)
    np.testing.assert_allclose(v.buffer, before - 3 * 0.5 * x, rtol=1e-6)
    assert v.buffer.ctypes.data == address
    assert not result.built.program.copies
    assert result.built.program.layout(()).arena == 64  # the partial sum, nothing for the update


def test_old_value_read_after_the_assignment_survives():
    v = Variable(normal(4, 4))

    def function(t, x):
        old = t.read(v)
        t.assign(v, t.ops.exp(x))
        return t.ops.matmul(old, t.read(v))

    result = compiled(function, (4, 4))
    old, x = v.buffer.copy(), normal(4, 4, seed=2)
    np.testing.assert_allclose(run(result, x)[0], old @ np.exp(x), rtol=1e-5)
    np.testing.assert_allclose(v.buffer, np.exp(x), rtol=1e-6)


def test_two_variables_change_places():
    a, b = Variable(normal(6)), Variable(normal(6, seed=1))
    old_a, old_b = a.buffer.copy(), b.buffer.copy()

    def function(t, x):
        first, second = t.read(a), t.read(b)
        t.assign(a, second)
        t.assign(b, first)
        return t.ops.exp(x)

    run(compiled(function, (2,)), normal(2))
    np.testing.assert_array_equal((a.buffer, b.buffer), (old_b, old_a))


def test_a_new_value_that_is_also_a_result_is_given_out_as_a_copy():
    v = Variable(np.float32([1, 2]))

    def function(t, x):
        new = t.ops.add(t.read(v), x)
        t.assign(v, new)
        return new

    result = compiled(function, (2,))
    first = run(result, np.float32([1, 1]))[0]
    second = run(result, np.float32([1, 1]))[0]
    np.testing.assert_array_equal(first, [2, 3])
    np.testing.assert_array_equal(second, [3, 4])
    np.testing.assert_array_equal(v.buffer, [3, 4])


def test_one_value_for_two_variables():
    a, b = Variable(normal(3)), Variable(normal(3))

    def function(t, x):
        value = t.ops.exp(x)
        t.assign(a, value)
        t.assign(b, value)
        return x

    x = normal(3, seed=5)
    run(compiled(function, (3,)), x)
    np.testing.assert_allclose(a.buffer, np.exp(x), rtol=1e-6)
    np.testing.assert_array_equal(a.buffer, b.buffer)


def test_a_failed_check_leaves_variables_as_they_were():
    v = Variable(normal(5))
    before = v.buffer.copy()

    def function(t, table, position):
        t.assign(v, t.ops.add(t.read(v), 1.0))
        return t.ops.take(table, t.ops.cast(position, dtype="int32"), axis=0)

    result = compiled(function, (5,), (2,))
    with pytest.raises(OutOfRangeError, match="index 9 on axis 0 of size 5"):
        run(result, normal(5), np.float32([1, 9]))
    np.testing.assert_array_equal(v.buffer, before)
    run(result, normal(5), np.float32([1, -5]))
    np.testing.assert_array_equal(v.buffer, before + 1)


def test_dying_inputs_lend_their_memory():
    def function(t, x, w):
        o = t.ops
        for _ in range(4):
            x = o.tanh(o.matmul(x, w))
        return x

    result = compiled(function, (32, 32), (32, 32))
    arena = result.built.program.layout(()).arena
    assert arena == 2 * 32 * 32 * 4  # a product and the next one, tanh in place


def test_one_program_for_all_sizes():
    result = compiled(lambda t, x: t.ops.softmax(x), ("n", "m"))
    for n, m in ((2, 3), (7, 2), (64, 129), (3, 5000)):
        x = normal(n, m)
        e = np.exp(x - x.max(-1, keepdims=True))
        np.testing.assert_allclose(run(result, x)[0], e / e.sum(-1, keepdims=True), rtol=2e-5)


def test_a_call_to_the_host_in_the_middle():
    seen = []

    def double(x):
        seen.append(x.copy())
        return (2 * x,)

    def function(t, x):
        y = t.ops.exp(x)
        (z,) = t.trace.apply(HostCall(function=double, types=(y.tensor,)), (y,))
        return t.ops.add(z, 1.0)

    x = normal(3)
    result = compiled(function, (3,))
    np.testing.assert_allclose(run(result, x)[0], 2 * np.exp(x) + 1, rtol=1e-6)
    np.testing.assert_allclose(seen[0], np.exp(x), rtol=1e-6)


def test_an_exception_on_the_host_reaches_the_caller():
    def fails(x):
        raise KeyError("mine")

    def function(t, x):
        (z,) = t.trace.apply(HostCall(function=fails, types=(x.tensor,)), (x,))
        return t.ops.exp(z)

    result = compiled(function, (3,))
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            run(result, normal(3))


def test_threads_share_a_program():
    result = compiled(lambda t, x: t.ops.sum(t.ops.exp(x), axes=(1,)), (300, 400))
    inputs = [normal(300, 400, seed=k) for k in range(8)]
    outputs = [None] * 8

    def work(k):
        for _ in range(5):
            outputs[k] = run(result, inputs[k])[0]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for x, y in zip(inputs, outputs, strict=True):
        np.testing.assert_allclose(y, np.exp(x).sum(1), rtol=1e-5)


def test_results_do_not_change_from_run_to_run():
    def function(t, x):
        return t.ops.sum(x, axes=(0,)), t.ops.sum(x, axes=(0, 1))

    result = compiled(function, (1000, 300))
    x = normal(1000, 300)
    first = run(result, x)
    for _ in range(5):
        for a, b in zip(first, run(result, x), strict=True):
            np.testing.assert_array_equal(a, b)


def test_embedding_gradient_is_one_scatter():
    def function(t, table, position):
        o = t.ops
        rows = o.take(table, o.cast(position, dtype="int32"), axis=0)
        return t.gradient(o.sum(o.square(rows), axes=(0, 1)), table)

    result = compiled(function, (5, 3), (4,), target=ONE_THREAD)
    table, position = normal(5, 3), np.float32([1, 1, 4, 0])
    want = np.zeros_like(table)
    np.add.at(want, position.astype(int), 2 * table[position.astype(int)])
    np.testing.assert_allclose(run(result, table, position)[0], want, rtol=1e-6)
    assert any("scatter" in t for t in titles(result))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_products_of_all_layouts(threads):
    def function(t, a, b):
        o = t.ops
        return o.matmul(a, b), o.matmul(a, a, transpose_b=True), o.matmul(b, b, transpose_a=True)

    result = compiled(function, (130, 70), (70, 300), target=Target(threads=threads))
    a, b = normal(130, 70), normal(70, 300, seed=1)
    for got, want in zip(run(result, a, b), (a @ b, a @ a.T, b.T @ b), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_tables_of_old_sizes_are_given_up():
    result = compiled(lambda t, x: t.ops.exp(t.ops.matmul(x, x, transpose_b=True)), ("n", 8))
    for n in range(2, 60):
        x = normal(n, 8)
        np.testing.assert_allclose(run(result, x)[0], np.exp(x @ x.T), rtol=1e-4)
    assert len(result.executable._instances) == MAX_INSTANCES


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="an x86 mode")
def test_denormals_are_flushed_in_variables_and_nowhere_else():
    """They make an optimizer's update slow and mean nothing in its slots."""
    v = Variable(np.full(100, 4e-38, "float32"))

    def function(t, x):
        t.assign(v, t.ops.multiply(t.read(v), 0.1))
        return t.ops.divide(x, 10.0)

    result = compiled(function, (100,))
    tiny = np.full(100, 4e-38, "float32")
    np.testing.assert_array_equal(run(result, tiny)[0], tiny / np.float32(10))
    np.testing.assert_array_equal(v.buffer, 0)
    assert np.float32(1e-38) * np.float32(0.1) > 0, "this thread computes as before"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_variable_takes_a_reduction_that_is_cleared_and_combined(threads):
    """Its kernel has parts to run before and after, which get the buffers themselves."""
    column, total = Variable(np.zeros(300, "float32")), Variable(np.float32(0))

    def function(t, x):
        t.assign(column, t.ops.sum(x, axes=(0,)))
        t.assign(total, t.ops.sum(t.ops.exp(x), axes=(0, 1)))

    def assigned_only(t, x):
        function(t, x)
        return []

    result = compiled(assigned_only, (2000, 300), target=Target(threads=threads))
    x = normal(2000, 300)
    for _ in range(2):
        assert run(result, x) == []
    np.testing.assert_allclose(column.buffer, x.sum(0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(total.buffer, np.exp(x.astype("float64")).sum(), rtol=1e-5)


def test_an_old_value_that_another_variable_takes_in_another_shape():
    """Found by random programs: the old value was read after its Variable had been overwritten."""
    a, b = Variable(np.zeros((6, 5), "float32")), Variable(normal(2, 3, 5))
    old = b.buffer.copy()

    def function(t, x):
        value = t.read(b)
        t.assign(a, t.ops.reshape(value, shape=(6, 5)))
        t.assign(b, t.ops.tanh(value))
        return t.ops.exp(x)

    run(compiled(function, (2,)), normal(2))
    np.testing.assert_array_equal(a.buffer, old.reshape(6, 5))
    np.testing.assert_allclose(b.buffer, np.tanh(old), rtol=1e-6)
