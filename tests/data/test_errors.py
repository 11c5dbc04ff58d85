"""Errors of users' functions arrive once and say where; iterators that end early leave nothing."""

import gc
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.data import Dataset
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError
from tests import house
from tests.data.conftest import data_threads, no_threads_left, plain


def divide(x: Any) -> Any:
    return 12 // (3 - int(x))


MAKERS: dict[str, Callable[[], Dataset]] = {
    "map": lambda: Dataset.range(9).map(divide),
    "parallel map": lambda: Dataset.range(9).map(divide, num_parallel_calls=3),
    "prefetch": lambda: Dataset.range(9).map(divide).prefetch(4),
    "both": lambda: Dataset.range(9).map(divide, 2).prefetch(2),
    "filter": lambda: Dataset.range(9).filter(lambda x: bool(divide(x)) or True),
    "flat_map": lambda: Dataset.range(9).flat_map(lambda x: Dataset.from_tensors(divide(x))),
    "interleave": lambda: Dataset.range(9).interleave(
        lambda x: Dataset.from_tensors(x).map(divide), 1, 1, num_parallel_calls=2
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_error_arrives_once_with_index_and_line(name: str) -> None:
    iterator = iter(MAKERS[name]())
    seen = [plain(next(iterator)) for _ in range(3)]
    assert len(seen) == 3
    with pytest.raises(ZeroDivisionError) as caught:
        next(iterator)
    notes = "\n".join(caught.value.__notes__)
    assert "element 3" in notes or name == "interleave"
    assert "test_errors.py" in notes
    assert "return 12 // (3 - int(x))" in notes or name in ("filter", "flat_map")
    assert next(iterator, "ended") == "ended"
    assert no_threads_left(), data_threads()
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert sum("test_errors" in f for f in files) >= 2


def test_the_text_of_an_error() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(Dataset.range(9).enumerate().map(lambda i, x: divide(x)))
    line = divide.__code__.co_firstlineno + 1
    assert caught.value.__notes__ == [
        f"in Dataset.map, element 3, at test_errors.py:{line}\n"
        "    return 12 // (3 - int(x))\n"
        "received: (int64[], int64[])"
    ]


def test_errors_of_generators_name_the_element() -> None:
    def rows():
        yield 1
        yield 2
        raise OSError("disk gone")

    got = []
    with pytest.raises(OSError, match="disk gone") as caught:
        for x in Dataset.from_generator(rows):
            got.append(int(x))
    assert got == [1, 2]
    assert "Dataset.from_generator, element 2" in caught.value.__notes__[0]


def test_stop_iteration_in_a_function_is_an_error() -> None:
    def stop(x: Any) -> Any:
        raise StopIteration

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(Dataset.range(3).map(stop))


def test_results_that_are_no_elements() -> None:
    with pytest.raises(DTypeError) as caught:
        list(Dataset.range(3).map(lambda x: None))
    assert "element 0" in caught.value.__notes__[0]
    with pytest.raises(ArgumentError, match=r"Dataset\.filter"):
        list(Dataset.range(3).filter(lambda x: x))
    with pytest.raises(DTypeError, match="returns a Dataset"):
        list(Dataset.range(3).flat_map(lambda x: x))


def test_batches_of_unlike_elements() -> None:
    ragged = Dataset.range(1, 4).map(lambda n: tf.ones((int(n),)))
    with pytest.raises(ShapeError, match="padded_batch"):
        list(ragged.batch(2))
    mixed = Dataset.range(4).map(lambda n: (n, n) if n % 2 == 0 else n)
    with pytest.raises(ArgumentError, match="same structure"):
        list(mixed.batch(2))
    dtypes = Dataset.range(4).map(lambda n: 1 if n % 2 == 0 else 1.0)
    with pytest.raises(ShapeError, match="one shape and dtype"):
        list(dtypes.batch(2))
    with pytest.raises(ShapeError, match="unbatch"):
        list(Dataset.range(3).unbatch())


def test_ignored_errors_leave_the_others() -> None:
    dataset = Dataset.range(9).map(divide, num_parallel_calls=2)
    assert [int(x) for x in dataset.ignore_errors()] == [4, 6, 12, -12, -6, -4, -3, -3]
    with pytest.warns(RuntimeWarning, match="element 3"):
        list(dataset.ignore_errors(log_warning=True))


def busy() -> Dataset:
    """All kinds of threads at once, without end."""
    dataset = Dataset.range(10**6).map(lambda x: x + 1, num_parallel_calls=3)
    dataset = dataset.interleave(
        lambda x: Dataset.range(x, x + 4).prefetch(2), 3, 2, num_parallel_calls=2
    )
    return dataset.shuffle(20).batch(4).prefetch(3)


def test_break_leaves_no_thread() -> None:
    for _ in busy():
        assert data_threads()
        break
    assert no_threads_left(), data_threads()


def test_del_and_close_and_with_leave_no_thread() -> None:
    iterator = iter(busy())
    next(iterator)
    del iterator
    assert no_threads_left(), data_threads()
    iterator = iter(busy())
    next(iterator)
    iterator.close()
    iterator.close()
    assert no_threads_left(), data_threads()
    with iter(busy()) as iterator:
        next(iterator)
    assert no_threads_left(), data_threads()


def test_an_exception_in_the_loop_leaves_no_thread() -> None:
    with pytest.raises(KeyError):
        for _ in busy():
            raise KeyError
    assert no_threads_left(), data_threads()


def test_a_forgotten_cycle_is_collected() -> None:
    holder: list[Any] = [iter(busy())]
    next(holder[0])
    holder.append(holder)
    del holder
    gc.collect()
    assert no_threads_left(), data_threads()


def test_threads_end_with_the_data() -> None:
    iterator = iter(busy().take(3))
    assert len(list(iterator)) == 3
    assert no_threads_left(), data_threads()
    assert next(iterator, None) is None


def test_an_open_iterator_without_steps_has_no_thread() -> None:
    iterator = iter(busy())
    assert not data_threads()
    iterator.close()


def test_closing_waits_for_the_call_that_runs() -> None:
    inside = threading.Event()

    def slow(x: Any) -> Any:
        inside.set()
        time.sleep(0.05)
        return x

    iterator = iter(Dataset.range(9).map(slow).prefetch(2))
    next(iterator)
    inside.clear()
    inside.wait(2)
    iterator.close()
    assert not data_threads()


def test_threads_may_share_an_iterator() -> None:
    iterator = iter(Dataset.range(300).map(lambda x: x, num_parallel_calls=2).prefetch(4))
    got: list[int] = []
    readers = [
        threading.Thread(target=lambda: got.extend(int(x) for x in iterator)) for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(got) == list(range(300))


def test_functions_are_not_part_of_a_trace_or_a_tape() -> None:
    weight = tf.Variable(2.0)
    dataset = Dataset.from_tensor_slices([1.0, 2.0]).map(lambda x: float(x) * weight)

    @tf.function
    def total() -> Any:
        return sum(x * 1.0 for x in dataset)

    assert float(total()) == 6.0
    with tf.GradientTape() as tape:
        y = sum(x * weight for x in dataset)
    assert float(tape.gradient(y, weight)) == 6.0


def test_functions_run_in_several_threads() -> None:
    names = set()

    def note(x: Any) -> Any:
        names.add(threading.current_thread().name)
        time.sleep(0.002)
        return x

    list(Dataset.range(30).map(note, num_parallel_calls=3))
    assert len(names) == 3
    assert np.all([n.startswith("graphnn-data-map") for n in names])


def test_a_process_with_open_iterators_ends_quietly() -> None:
    code = """
        from graphnn.data import Dataset

        kept = []
        for workers in (None, 2):
            dataset = Dataset.range(10**6).map(lambda x: x + 1, workers).batch(4).prefetch(3)
            kept.append(iter(dataset))
            next(kept[-1])
        print("end")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=house.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "end\n", "")
