"""A saved position goes on exactly where the iterator was, in this process and in a new one."""

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphnn.data import Dataset
from graphnn.data.storage import pack, unpack
from graphnn.runtime.errors import ArgumentError, StateError
from tests import house
from tests.data.conftest import plain, values

X = np.arange(60, dtype="float32").reshape(20, 3)
Y = np.arange(20)


def slow_odd(x: Any) -> Any:
    return x * 2 + 1


PIPELINES: dict[str, Callable[[], Dataset]] = {
    "slices": lambda: Dataset.from_tensor_slices((X, Y)),
    "guide": lambda: Dataset.from_tensor_slices((X, Y)).shuffle(8, seed=1).batch(3),
    "epochs": lambda: Dataset.range(13).shuffle(5, seed=1).repeat(3).batch(4),
    "choice": lambda: Dataset.range(30).skip(3).shard(2, 1).take(9).enumerate(),
    "elements": lambda: Dataset.range(20).map(slow_odd).shuffle(6, seed=2).repeat(2),
    "strings": lambda: Dataset.from_tensor_slices(list("abcdefgh")).map(lambda s: s).shuffle(3, 0),
    "threads": lambda: (
        Dataset.range(25).map(slow_odd, num_parallel_calls=3).shuffle(4, seed=3).prefetch(3)
    ),
    "prefetch first": lambda: Dataset.range(9).prefetch(4).repeat(2).batch(2).prefetch(1),
    "filter": lambda: Dataset.range(30).filter(lambda x: x % 3 != 0).batch(4),
    "generator": lambda: Dataset.from_generator(lambda: iter(range(17))).batch(2),
    "flat": lambda: Dataset.range(6).flat_map(lambda n: Dataset.range(n).shuffle(9, seed=4)),
    "interleave": lambda: Dataset.range(7).interleave(
        lambda n: Dataset.range(n * 10, n * 10 + 4).shuffle(4, seed=5).repeat(2), 3, 2
    ),
    "parallel interleave": lambda: Dataset.range(7).interleave(
        lambda n: Dataset.range(n * 10, n * 10 + 5).shuffle(4, seed=5), 3, 2, num_parallel_calls=2
    ),
    "unbatch": lambda: Dataset.range(20).batch(6).unbatch().batch(4),
    "zip": lambda: Dataset.zip(
        {"a": Dataset.range(9).shuffle(3, 1), "b": Dataset.range(20).map(slow_odd)}
    ),
    "concatenate": lambda: Dataset.range(5).concatenate(Dataset.range(9).shuffle(4, seed=1)),
    "padded": lambda: (
        Dataset.range(9).flat_map(lambda n: Dataset.range(n).batch(99)).padded_batch(3)
    ),
    "cache": lambda: Dataset.range(9).shuffle(9, seed=8).map(slow_odd).cache().repeat(3),
    "cache then shuffle": lambda: Dataset.range(9).map(slow_odd).cache().shuffle(4, 1).repeat(2),
    "single": lambda: Dataset.from_tensors(3).repeat(4),
    "ignored errors": lambda: (
        Dataset.range(12).map(lambda x: 6 // (int(x) % 4)).ignore_errors().batch(2)
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_every_position_of(name: str) -> None:
    make = PIPELINES[name]
    whole = values(make())
    assert len(whole) >= 3
    source = iter(make())
    for place in range(len(whole) + 1):
        state = unpack(pack(source.state()))
        with make().iterator(state) as restored:
            assert restored.position == place
            assert [plain(e) for e in restored] == whole[place:], f"after {place} elements"
        if place < len(whole):
            assert plain(next(source)) == whole[place]  # saving has changed nothing
    assert next(source, None) is None
    with make().iterator(source.state()) as ended:
        assert list(ended) == []


@pytest.mark.parametrize("name", ["guide", "epochs", "threads", "cache"])
def test_the_epochs_after_a_restored_one_go_on_too(name: str) -> None:
    first = PIPELINES[name]()
    order = [values(first), values(first)]
    third = iter(first)
    head = [plain(e) for e in itertools.islice(third, 2)]
    state = third.state()
    rest = [[plain(e) for e in third], values(first)]
    second = PIPELINES[name]()
    assert [[plain(e) for e in second.iterator(state)], values(second)] == rest
    assert len(head) + len(rest[0]) == len(order[0])


def test_a_seed_of_none_is_part_of_the_position() -> None:
    iterator = iter(Dataset.range(40).shuffle(10))
    for _ in range(7):
        next(iterator)
    restored = Dataset.range(40).shuffle(10).iterator(iterator.state())
    assert [int(x) for x in restored] == [int(x) for x in iterator]


def test_a_position_survives_in_a_file_and_another_process(tmp_path: Path) -> None:
    code = """
        import sys
        from graphnn.data import Dataset

        def dataset():
            data = Dataset.range(50).shuffle(12, seed=9).map(lambda x: x * 3, 2)
            return data.shuffle(5).batch(4).prefetch(2)

        if sys.argv[1] == "save":
            it = iter(dataset())
            for _ in range(4):
                next(it)
            it.save(sys.argv[2])
        else:
            it = dataset().iterator(sys.argv[2])
        print([x.tolist() for x in it])
    """
    outputs = []
    for mode in ("save", "load"):
        command = [sys.executable, "-c", textwrap.dedent(code), mode, str(tmp_path / "at.bin")]
        run = subprocess.run(
            command, cwd=house.ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 30
    assert [p.name for p in tmp_path.iterdir()] == ["at.bin"]


def test_a_position_in_another_pipeline_is_refused() -> None:
    state = iter(Dataset.range(5).shuffle(3)).state()
    with pytest.raises(StateError, match=r"shuffle\(3\)"):
        Dataset.range(5).shuffle(4).iterator(state)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "at.bin"
    iterator = iter(Dataset.range(5).map(lambda x: x).shuffle(3))
    next(iterator)
    iterator.save(path)
    whole = path.read_bytes()
    for data in (b"", b"nonsense", whole[:-4], whole + b"x", whole[:12] + b"\xff" + whole[13:]):
        path.write_bytes(data)
        with pytest.raises(StateError, match="damaged"):
            Dataset.range(5).map(lambda x: x).shuffle(3).iterator(path)


def test_a_closed_iterator_has_no_position() -> None:
    iterator = iter(Dataset.range(5))
    iterator.close()
    with pytest.raises(StateError, match="closed"):
        iterator.state()
    assert list(iterator) == []


def test_a_failed_element_in_a_buffer_has_no_position() -> None:
    iterator = iter(Dataset.range(5).map(lambda x: 1 // (2 - int(x))).prefetch(5))
    next(iterator)
    with pytest.raises(StateError, match="ZeroDivisionError"):
        iterator.state()
    iterator.close()


def test_other_objects_cannot_be_packed() -> None:
    with pytest.raises(ArgumentError, match="complex"):
        pack({"a": 1j})


def test_cache_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    calls = []

    def note(x: Any) -> Any:
        calls.append(int(x))
        return {"x": x, "text": np.array("é", "U")}

    path = tmp_path / "sub" / "cache"
    make = lambda: Dataset.range(5).map(note).cache(path)  # noqa: E731
    for _ in make():
        break
    assert list(path.parent.iterdir()) == []
    first = values(make().repeat(2))
    assert calls == [0, *range(5)]
    assert values(make()) == first[:5] == first[5:]
    assert len(calls) == 6
    iterator = iter(make())
    next(iterator)
    assert [plain(e) for e in make().iterator(iterator.state())] == first[1:5]
    iterator.close()
    assert [p.name for p in path.parent.iterdir()] == ["cache"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StateError, match="cut off"):
        list(make())


def test_cache_in_memory_computes_once() -> None:
    calls = []
    dataset = Dataset.range(4).map(lambda x: calls.append(int(x)) or x).cache()
    assert values(dataset.take(2)) == [0, 1]
    assert values(dataset) == values(dataset) == [0, 1, 2, 3]
    assert calls == [0, 1, 0, 1, 2, 3]
