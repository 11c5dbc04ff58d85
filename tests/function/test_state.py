"""Variables, methods, nesting, tapes, threads, and what a failed call leaves behind."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import graphnn as gnn
from graphnn.runtime import errors


def test_variables_are_updated_in_place() -> None:
    v = gnn.Variable([1.0, 2.0])
    buffer = v._buffer

    @gnn.function
    def add(x: Any) -> Any:
        old = v.value()
        v.assign_add(x)
        v.assign(v * 2.0)
        return old, v.value()

    before = v.value()
    old, new = add(gnn.ones(2))
    assert old.numpy().tolist() == before.numpy().tolist() == [1.0, 2.0]
    assert new.numpy().tolist() == v.numpy().tolist() == [4.0, 6.0]
    assert v._buffer is buffer
    add(gnn.ones(2))
    assert v.numpy().tolist() == [10.0, 14.0]
    assert new.numpy().tolist() == [4.0, 6.0]


def test_argument_that_is_the_variable_that_is_assigned() -> None:
    v = gnn.Variable([1.0, 2.0, 3.0])

    @gnn.function
    def turn(x: Any) -> Any:
        v.assign(x[::-1])
        return x + v

    turn(gnn.ones(3))
    v.assign([1.0, 2.0, 3.0])
    assert turn(v.value()).numpy().tolist() == [4.0, 4.0, 4.0]
    assert v.numpy().tolist() == [3.0, 2.0, 1.0]


def test_variable_as_argument() -> None:
    @gnn.function
    def read(v: Any) -> Any:
        return v + 1.0

    a, b = gnn.Variable(1.0), gnn.Variable(5.0)
    assert read(a).numpy() == 2.0 and read(b).numpy() == 6.0
    a.assign(10.0)
    assert read(a).numpy() == 11.0
    assert read.trace_count == 2


def test_moved_buffer_is_found() -> None:
    v = gnn.Variable([1.0, 2.0])
    double = gnn.function(lambda: v * 2.0)
    assert double().numpy().tolist() == [2.0, 4.0]
    v._rebind(np.zeros(2, np.float32))
    assert double().numpy().tolist() == [2.0, 4.0]
    v.assign([5.0, 5.0])
    assert double().numpy().tolist() == [10.0, 10.0]


def test_variable_created_on_the_first_call_only() -> None:
    class Model:
        def __init__(self) -> None:
            self.w: Any = None
            self.calls = 0

        @gnn.function
        def __call__(self, x: Any) -> Any:
            self.calls += 1
            if self.w is None:
                self.w = gnn.Variable(gnn.ones((3,)) * 2.0)
            self.w.assign_add(x)
            return self.w * 1.0

    model = Model()
    assert model(gnn.ones(3)).numpy().tolist() == [3.0, 3.0, 3.0]
    assert model(gnn.ones(3)).numpy().tolist() == [4.0, 4.0, 4.0]
    assert model.calls == 2  # the second trace shows that creation happens once


def test_variable_created_on_each_call_is_refused() -> None:
    made: list[Any] = []

    @gnn.function
    def f(x: Any) -> Any:
        v = gnn.Variable(1.0)
        made.append(weakref.ref(v))
        return x * v

    for _ in range(2):
        with pytest.raises(errors.StateError, match="created on a call after the first"):
            f(gnn.ones(3))
    assert f.trace_count == 0
    gc.collect()
    assert gnn.executing_eagerly()


def test_variable_created_on_a_later_trace_is_refused() -> None:
    kept: dict[int, Any] = {}

    @gnn.function
    def f(x: Any, k: int) -> Any:
        if k not in kept:
            kept[k] = gnn.Variable(float(k))
        return x * kept[k]

    assert f(gnn.ones(1), 3).numpy() == 3.0
    with pytest.raises(errors.StateError, match="created on a call after the first"):
        f(gnn.ones(1), 4)
    assert f(gnn.ones(1), 3).numpy() == 3.0


def test_methods_have_traces_per_instance_and_die_with_it() -> None:
    class Scale:
        def __init__(self, k: float) -> None:
            self.k = gnn.Variable(k)

        @gnn.function
        def __call__(self, x: Any) -> Any:
            return x * self.k

        @gnn.function(input_signature=[gnn.TensorSpec([None])])
        def fixed(self, x: Any) -> Any:
            return x + self.k

    two, three = Scale(2.0), Scale(3.0)
    assert two(gnn.ones(2)).numpy().tolist() == [2.0, 2.0]
    assert three(gnn.ones(2)).numpy().tolist() == [3.0, 3.0]
    assert two.fixed([1.0]).numpy().tolist() == [3.0]
    assert two.__call__.trace_count == three.__call__.trace_count == 1
    assert two.fixed == two.fixed and two.fixed != three.fixed
    kept = Scale(7.0).fixed
    assert kept([1.0, 2.0]).numpy().tolist() == [8.0, 9.0]
    gone = weakref.ref(three)
    del three
    gc.collect()
    assert gone() is None
    assert len(Scale.__dict__["__call__"]._by_owner) == 1


def test_nested_functions_are_inlined() -> None:
    @gnn.function
    def inner(x: Any) -> Any:
        return gnn.exp(x)

    @gnn.function
    def outer(x: Any) -> Any:
        return inner(x) + inner(x * 2.0)

    x = gnn.constant([0.5, 1.0])
    np.testing.assert_allclose(outer(x).numpy(), np.exp([0.5, 1]) + np.exp([1, 2]), rtol=1e-6)
    assert inner.trace_count == 0 and outer.trace_count == 1


def test_recursion_on_python_numbers() -> None:
    @gnn.function
    def power(x: Any, n: int) -> Any:
        return gnn.ones_like(x) if n == 0 else x * power(x, n - 1)

    assert power(gnn.constant([2.0, 3.0]), 3).numpy().tolist() == [8.0, 27.0]


def test_gradient_inside() -> None:
    w = gnn.Variable([1.0, 2.0])

    @gnn.function
    def step(x: Any) -> Any:
        with gnn.GradientTape() as tape:
            loss = gnn.sum(gnn.square(w) * x)
        g = tape.gradient(loss, w)
        w.assign_sub(0.1 * g)
        return loss, g

    loss, g = step(gnn.ones(2))
    assert loss.numpy() == 5.0 and g.numpy().tolist() == [2.0, 4.0]
    np.testing.assert_allclose(w.numpy(), [0.8, 1.6], rtol=1e-6)


def test_tape_around_a_function() -> None:
    w = gnn.Variable([1.0, 2.0])
    count = gnn.Variable(0.0, trainable=False)

    @gnn.function
    def f(x: Any) -> Any:
        count.assign_add(1.0)
        return gnn.sum(x * x * w), gnn.sum(x)

    x = gnn.constant([3.0, 4.0])
    with gnn.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y, z = f(x)
        total = y + z * 10.0
    gx, gw = tape.gradient(total, [x, w])
    np.testing.assert_allclose(gx.numpy(), 2 * x.numpy() * w.numpy() + 10)
    np.testing.assert_allclose(gw.numpy(), x.numpy() ** 2)
    assert count.numpy() == 1.0 and f.trace_count == 1


def test_array_that_is_changed_after_a_recorded_call() -> None:
    f = gnn.function(lambda x, w: gnn.sum(x * w))
    w, x = gnn.Variable([1.0, 1.0]), np.array([2.0, 3.0], np.float32)
    with gnn.GradientTape() as tape:
        y = f(x, w)
    x[:] = 100.0
    assert tape.gradient(y, w).numpy().tolist() == [2.0, 3.0]


def test_second_order_through_a_function() -> None:
    f = gnn.function(lambda x: x * x * x)
    x = gnn.constant([1.0, 2.0])
    with gnn.GradientTape() as outer:
        outer.watch(x)
        with gnn.GradientTape() as inner:
            inner.watch(x)
            y = f(x)
        g = inner.gradient(y, x)
    np.testing.assert_allclose(g.numpy(), [3.0, 12.0])
    np.testing.assert_allclose(outer.gradient(g, x).numpy(), [6.0, 12.0])


def test_recompute_grad_in_a_trace() -> None:
    block = gnn.recompute_grad(lambda x: gnn.sigmoid(gnn.exp(gnn.tanh(x))))

    def gradient(x: Any) -> Any:
        with gnn.GradientTape() as tape:
            tape.watch(x)
            y = gnn.sum(block(block(x)))
        return tape.gradient(y, x)

    x = gnn.constant([0.5, -1.0, 2.0])
    traced = gnn.function(gradient)
    np.testing.assert_allclose(traced(x).numpy(), gradient(x).numpy(), rtol=1e-5)
    names = [n.op.name for n in traced.stages()[-1][1].nodes]
    assert names.count("exp") == 3  # the first block forward, then each block again
    assert names.count("barrier") == 2


def test_raising_function_leaves_everything_as_before() -> None:
    v = gnn.Variable([1.0])
    fail = True

    @gnn.function
    def f(x: Any) -> Any:
        v.assign_add(x)
        if fail:
            raise KeyError("mine")
        return v.value()

    with gnn.GradientTape() as tape:
        tape.watch(v)
        with pytest.raises(KeyError, match="mine") as caught:
            f(gnn.ones(1))
        assert gnn.executing_eagerly()
        loss = gnn.sum(v * 3.0)
    frames = [entry.path.name for entry in caught.traceback]
    assert frames[0] == frames[-1] == "test_state.py"
    assert frames.count("function.py") + frames.count("traces.py") == len(frames) - 2
    assert len(frames) == 3  # the call, graphnn's one frame, the line that raised
    assert tape.gradient(loss, v).numpy().tolist() == [3.0]
    assert v.numpy().tolist() == [1.0] and f.trace_count == 0
    fail = False
    assert f(gnn.ones(1)).numpy().tolist() == [2.0]


def test_a_failed_check_leaves_variables_as_before() -> None:
    count, other = gnn.Variable([5, 6, 7]), gnn.Variable([1.0, 2.0, 3.0])

    @gnn.function
    def step(divisor: Any, index: Any) -> None:
        other.assign_add(other * 2.0)
        count.assign(count // divisor + gnn.gather(gnn.constant([1, 2, 3]), index))

    good = gnn.constant([1, 2, 1])
    for divisor, index in ((gnn.constant([1, 0, 2]), good), (good, gnn.constant([1, 9, 2]))):
        with pytest.raises((ZeroDivisionError, IndexError)):
            step(divisor, index)
        assert count.numpy().tolist() == [5, 6, 7] and other.numpy().tolist() == [1, 2, 3]
    step(good, good)
    assert count.numpy().tolist() == [7, 6, 9] and other.numpy().tolist() == [3, 6, 9]


def test_random_numbers_are_the_same_and_go_on() -> None:
    draw = gnn.function(lambda: gnn.random.normal((4,)))
    gnn.random.set_seed(3)
    eager = [gnn.random.normal((4,)).numpy() for _ in range(3)]
    gnn.random.set_seed(3)
    compiled = [draw().numpy() for _ in range(3)]
    np.testing.assert_array_equal(eager, compiled)
    assert not (compiled[0] == compiled[1]).all()


def test_threads() -> None:
    traces = []
    total = gnn.Variable(0.0)

    @gnn.function
    def f(x: Any, k: int) -> Any:
        traces.append(k)
        total.assign_add(gnn.sum(x))
        return x * float(k)

    wrong: list[Any] = []

    def work(k: int) -> None:
        try:
            for n in range(2, 12):
                if f(gnn.ones(n), k % 2).numpy().tolist() != [float(k % 2)] * n:
                    wrong.append((n, k))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(traces) == f.trace_count <= 4


def test_flags_are_part_of_the_signature() -> None:
    from graphnn.signature import FLAGS

    policy = ["float32"]
    FLAGS.register("test policy", lambda: policy[0])
    try:
        f = gnn.function(lambda x: x * (2.0 if policy[0] == "float32" else 3.0))
        assert f(gnn.ones(1)).numpy() == 2.0
        policy[0] = "float16"
        FLAGS.changed()
        assert f(gnn.ones(1)).numpy() == 3.0
        assert "(test policy): float32 -> float16" in f.explain()
    finally:
        FLAGS._read.pop("test policy")
        FLAGS.changed()


def test_a_scatter_that_fails_leaves_other_variables_as_they_were() -> None:
    plain, table = gnn.Variable(gnn.ones(4)), gnn.Variable(gnn.zeros((5, 3)))

    @gnn.function
    def step(i: Any) -> None:
        plain.assign_add(gnn.ones(4))
        table.scatter_nd_update(i, gnn.ones((2, 3)))

    step(gnn.constant([[3], [4]]))
    with pytest.raises(gnn.errors.OutOfRangeError):
        step(gnn.constant([[3], [99]]))
    np.testing.assert_array_equal(plain, np.full(4, 2.0))


def test_a_failed_call_keeps_no_array() -> None:
    @gnn.function
    def picked(x: Any, i: Any) -> Any:
        return gnn.gather(x, i)

    x = gnn.ones(1000)
    with pytest.raises(gnn.errors.OutOfRangeError):
        picked(x, gnn.constant([1000]))
    concrete = picked.get_concrete_function(x, gnn.constant([0]))
    kept = [i.current for i in concrete.compiled.executable._instances.values()]
    assert kept and not any(a is not None for current in kept for a in current)
