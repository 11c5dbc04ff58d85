"""Dataset: elements that are read, transformed, shuffled and batched while a model trains."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphnn.data import arguments as check
from graphnn.data.batching import Batch, PaddedBatch, Unbatch
from graphnn.data.caching import Cache
from graphnn.data.calls import Call
from graphnn.data.elements import map_leaves, to_array, to_numpy, wrap
from graphnn.data.iterator import DatasetIterator, read_position
from graphnn.data.mapping import Filter, IgnoreErrors, Map
from graphnn.data.ordering import Concatenate, Repeat, Shard, Skip, Take
from graphnn.data.paths import expand
from graphnn.data.prefetch import Prefetch
from graphnn.data.shuffling import Shuffle
from graphnn.data.sources import ENDLESS, Arrays, FromGenerator, Gather, Single, Steps
from graphnn.data.stage import INFINITE, Stage
from graphnn.data.weaving import Interleave, zipped
from graphnn.runtime.errors import StateError
from graphnn.tensor import Tensor

_OPEN_FILES = 4  # datasets that interleave reads at once unless told; part of the order, so fixed


class Dataset:
    """A sequence of elements that is computed while it is iterated over, larger than memory or
    without end if need be.

    An element is a tensor, or a tuple, dict or dataclass of tensors; text comes as tensors of
    strings. A list is one tensor. Each method gives a new Dataset. Iterating again starts
    again.

    Functions given to `map`, `filter` and others get the parts of a tuple as arguments and run
    eagerly. An error in one of them reaches the loop once, with a note that says which element it
    was; the iterator is then closed.

    >>> dataset = graphnn.data.Dataset.from_tensor_slices(([1.0, 2.0, 3.0], [0, 1, 0]))
    >>> for x, y in dataset.map(lambda x, y: (x * 10, y)).batch(2):
    ...     print(x.numpy(), y.numpy())
    [10. 20.] [0 1]
    [30.] [0]
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    # ---- sources -----------------------------------------------------------------------------

    @staticmethod
    def from_tensor_slices(tensors: Any) -> Dataset:
        """One element for each index of the first axis of arrays, which are not copied.

        tensors: an array, or a structure of arrays of the same length. Raises ShapeError for other
        lengths. Stages that only choose or reorder these (shuffle, take, skip, shard, repeat)
        handle row numbers, and `batch` gathers whole batches.

        >>> [x.tolist() for x in graphnn.data.Dataset.from_tensor_slices([[1, 2], [3, 4]])]
        [[1, 2], [3, 4]]
        """
        return Dataset(Gather(Arrays(tensors)))

    @staticmethod
    def from_tensors(tensors: Any) -> Dataset:
        """One element.

        >>> len(graphnn.data.Dataset.from_tensors([1, 2, 3]))
        1
        """
        return Dataset(Single(tensors))

    @staticmethod
    def from_generator(
        generator: Callable[..., Any],
        output_types: Any = None,
        output_shapes: Any = None,
        args: tuple[Any, ...] = (),
        output_signature: Any = None,
    ) -> Dataset:
        """What a generator yields.

        generator: a function of `args`, called anew for each epoch. output_signature: a structure
        of TensorSpecs; elements are converted to its dtypes, and ShapeError is raised for an
        element that does not fit. Without it `element_spec` looks at the first element.
        output_types and output_shapes are the older form. A restored position runs the generator
        up to there, so it should yield the same each time.

        >>> dataset = graphnn.data.Dataset.from_generator(lambda: ([i] * i for i in (1, 2)))
        >>> [x.tolist() for x in dataset]
        [[1], [2, 2]]
        """
        signature = check.signature(output_signature, output_types, output_shapes)
        arguments = tuple(map_leaves(wrap, map_leaves(to_array, a)) for a in args)
        return Dataset(FromGenerator(generator, arguments, signature))

    @staticmethod
    def range(*args: int, output_type: Any = "int64") -> Dataset:
        """Integers as of Python's range(stop), range(start, stop) or range(start, stop, step).

        >>> [int(x) for x in graphnn.data.Dataset.range(1, 8, 3)]
        [1, 4, 7]
        """
        numbers = builtins.range(*(check.integer(a, "Dataset.range", "an argument") for a in args))
        table = Steps(numbers.start, numbers.step, len(numbers), check.dtype(output_type))
        return Dataset(Gather(table))

    @staticmethod
    def zip(*datasets: Any) -> Dataset:
        """Elements of several datasets side by side, until the first of them ends.

        datasets: several arguments, or one structure of datasets.

        >>> a, b = graphnn.data.Dataset.range(3), graphnn.data.Dataset.range(10, 20)
        >>> [(int(x), int(y)) for x, y in graphnn.data.Dataset.zip((a, b))]
        [(0, 10), (1, 11), (2, 12)]
        """
        return Dataset(zipped(check.stages(datasets[0] if len(datasets) == 1 else datasets)))

    @staticmethod
    def list_files(
        file_pattern: Any, shuffle: bool | None = None, seed: int | None = None
    ) -> Dataset:
        """Paths that match patterns such as "data/*.txt", local or through fsspec; sorted, then in
        random order unless `shuffle` is False. Raises ArgumentError if none matches."""
        files = Dataset.from_tensor_slices(expand(file_pattern, "Dataset.list_files"))
        return files if shuffle is False else files.shuffle(len(files), seed)

    # ---- functions of elements ---------------------------------------------------------------

    def map(
        self,
        map_func: Callable[..., Any],
        num_parallel_calls: int | None = None,
        deterministic: bool | None = True,
    ) -> Dataset:
        """The results of a function of each element.

        num_parallel_calls: threads that call it, AUTOTUNE for one per core; the order stays the
        same unless deterministic is False. `element_spec` calls the function on the first element.

        >>> [int(x) for x in graphnn.data.Dataset.range(3).map(lambda x: x + 10)]
        [10, 11, 12]
        """
        workers = check.workers(num_parallel_calls, "Dataset.map")
        ordered = deterministic is not False
        return Dataset(Map(self._stage, Call(map_func, "Dataset.map"), workers, ordered))

    def filter(self, predicate: Callable[..., Any]) -> Dataset:
        """The elements for which a function gives True.

        >>> [int(x) for x in graphnn.data.Dataset.range(6).filter(lambda x: x % 2 == 0)]
        [0, 2, 4]
        """
        return Dataset(Filter(self._stage, Call(predicate, "Dataset.filter")))

    def flat_map(self, map_func: Callable[..., Any]) -> Dataset:
        """The elements of the datasets that a function makes, one dataset after the other.

        >>> dataset = graphnn.data.Dataset.range(3).flat_map(graphnn.data.Dataset.range)
        >>> [int(x) for x in dataset]
        [0, 0, 1]
        """
        return Dataset(Interleave(self._stage, Call(map_func, "Dataset.flat_map"), 1, 1, 0))

    def interleave(
        self,
        map_func: Callable[..., Any],
        cycle_length: int | None = None,
        block_length: int = 1,
        num_parallel_calls: int | None = None,
        deterministic: bool | None = True,
    ) -> Dataset:
        """The elements of the datasets that a function makes, in turn from several of them.

        cycle_length: datasets that are open at once, 4 unless told. block_length: elements taken
        from one at its turn. num_parallel_calls: threads that read ahead; the order does not depend
        on it.

        >>> dataset = graphnn.data.Dataset.from_tensor_slices([10, 20, 30])
        >>> pairs = dataset.interleave(lambda x: graphnn.data.Dataset.range(x, x + 2), 2)
        >>> [int(x) for x in pairs]
        [10, 20, 11, 21, 30, 31]
        """
        subject = "Dataset.interleave"
        cycle = _OPEN_FILES if cycle_length in (None, check.AUTOTUNE) else cycle_length
        cycle = check.positive(cycle, subject, "cycle_length")
        block = check.positive(block_length, subject, "block_length")
        workers = check.workers(num_parallel_calls, subject)
        return Dataset(Interleave(self._stage, Call(map_func, subject), cycle, block, workers))

    def apply(self, transformation_func: Callable[[Dataset], Any]) -> Any:
        """`transformation_func(self)`, for chains of methods."""
        return transformation_func(self)

    def reduce(self, initial_state: Any, reduce_func: Callable[[Any, Any], Any]) -> Any:
        """The state after `state = reduce_func(state, element)` for all elements.

        >>> int(graphnn.data.Dataset.range(5).reduce(0, lambda total, x: total + x))
        10
        """
        call = Call(reduce_func, "Dataset.reduce")
        state = map_leaves(to_array, initial_state)
        with DatasetIterator(self._stage, leaf=lambda leaf: leaf) as elements:
            for index, element in enumerate(elements):
                state = call.element((state, element), index)
        return map_leaves(wrap, state)

    def ignore_errors(self, log_warning: bool = False) -> Dataset:
        """All elements but those whose computation raised an error."""
        return Dataset(IgnoreErrors(self._stage, log_warning))

    # ---- batches -----------------------------------------------------------------------------

    def batch(
        self,
        batch_size: int,
        drop_remainder: bool = False,
        num_parallel_calls: int | None = None,
        deterministic: bool | None = None,
    ) -> Dataset:
        """Elements put together along a new first axis.

        drop_remainder: whether a last, smaller batch is left out. num_parallel_calls and
        deterministic are accepted and not needed. Raises ShapeError for elements of different
        shapes.

        >>> [x.tolist() for x in graphnn.data.Dataset.range(5).batch(2)]
        [[0, 1], [2, 3], [4]]
        """
        rows = check.positive(batch_size, "Dataset.batch", "batch_size")
        return Dataset(Batch(self._stage, rows, bool(drop_remainder)))

    def padded_batch(
        self,
        batch_size: int,
        padded_shapes: Any = None,
        padding_values: Any = None,
        drop_remainder: bool = False,
    ) -> Dataset:
        """Batches of elements of different sizes, filled up at the end of each axis.

        padded_shapes: a shape for each part of an element; None for an axis means the longest in
        the batch. padding_values: a value for all or for each part; 0 and "" by default. Raises
        ShapeError for an element that is larger.

        >>> dataset = graphnn.data.Dataset.range(1, 4).map(lambda n: graphnn.ones((int(n),)))
        >>> [x.tolist() for x in dataset.padded_batch(2)]
        [[[1.0, 0.0], [1.0, 1.0]], [[1.0, 1.0, 1.0]]]
        """
        rows = check.positive(batch_size, "Dataset.padded_batch", "batch_size")
        drop = bool(drop_remainder)
        return Dataset(PaddedBatch(self._stage, rows, drop, padded_shapes, padding_values))

    def unbatch(self) -> Dataset:
        """The parts of each element along its first axis.

        >>> [int(x) for x in graphnn.data.Dataset.range(3).batch(2).unbatch()]
        [0, 1, 2]
        """
        return Dataset(Unbatch(self._stage))

    # ---- order -------------------------------------------------------------------------------

    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool = True
    ) -> Dataset:
        """Random order: each element is drawn from a buffer that the next ones refill.

        buffer_size: elements to draw from; with all of them in it each order is equally likely.
        seed: None takes one from `graphnn.random`, so `set_seed` fixes it. The same seed gives the
        same order, whatever runs in parallel; each epoch has another one unless
        reshuffle_each_iteration is False.

        >>> dataset = graphnn.data.Dataset.range(5).shuffle(5, seed=1)
        >>> sorted(int(x) for x in dataset)
        [0, 1, 2, 3, 4]
        """
        size = check.positive(buffer_size, "Dataset.shuffle", "buffer_size")
        number = None if seed is None else check.integer(seed, "Dataset.shuffle", "seed")
        again = reshuffle_each_iteration is not False
        return self._reordered(lambda stage: Shuffle(stage, size, number, again))

    def repeat(self, count: int | None = None) -> Dataset:
        """The elements `count` times, without end for None or -1.

        >>> [int(x) for x in graphnn.data.Dataset.range(2).repeat(2)]
        [0, 1, 0, 1]
        """
        times = INFINITE if count is None else check.count(count, "Dataset.repeat")
        return self._reordered(lambda stage: Repeat(stage, times))

    def take(self, count: int) -> Dataset:
        """At most the first `count` elements; all for -1.

        >>> [int(x) for x in graphnn.data.Dataset.range(9).take(2)]
        [0, 1]
        """
        number = check.count(count, "Dataset.take")
        return self if number < 0 else self._reordered(lambda stage: Take(stage, number))

    def skip(self, count: int) -> Dataset:
        """All but the first `count` elements; none for -1.

        >>> [int(x) for x in graphnn.data.Dataset.range(5).skip(3)]
        [3, 4]
        """
        number = check.count(count, "Dataset.skip")
        return self.take(0) if number < 0 else self._reordered(lambda stage: Skip(stage, number))

    def shard(self, num_shards: int, index: int) -> Dataset:
        """Each `num_shards`-th element, from the one at `index` on: a part for one of several
        readers. Shard before shuffle, or give all readers the same seed.

        >>> [int(x) for x in graphnn.data.Dataset.range(7).shard(3, 1)]
        [1, 4]
        """
        number = check.positive(num_shards, "Dataset.shard", "num_shards")
        place = check.below(index, number, "Dataset.shard", "index")
        return self._reordered(lambda stage: Shard(stage, number, place))

    def concatenate(self, dataset: Dataset) -> Dataset:
        """All elements, then all of another dataset.

        >>> dataset = graphnn.data.Dataset.range(2)
        >>> [int(x) for x in dataset.concatenate(dataset)]
        [0, 1, 0, 1]
        """
        return Dataset(Concatenate(self._stage, check.stages(dataset)))

    def enumerate(self, start: int = 0) -> Dataset:
        """Pairs of a running number (int64) and the element.

        >>> [(int(i), int(x)) for i, x in graphnn.data.Dataset.range(5, 7).enumerate()]
        [(0, 5), (1, 6)]
        """
        first = check.integer(start, "Dataset.enumerate", "start")
        return Dataset(zipped((Gather(Steps(first, 1, ENDLESS)), self._stage)))

    def _reordered(self, make: Callable[[Stage], Stage]) -> Dataset:
        """A stage that only chooses or reorders works on the row numbers of a table."""
        stage = self._stage
        if isinstance(stage, Gather):
            return Dataset(Gather(stage.table, make(stage.order)))
        return Dataset(make(stage))

    # ---- buffers -----------------------------------------------------------------------------

    def cache(self, filename: str | os.PathLike[str] | None = None) -> Dataset:
        """The elements as the first whole pass computed them.

        filename: a local file to keep them in; it is written beside and renamed at the end, and
        used by later runs. Without it they stay in memory.
        """
        if isinstance(self._stage, Gather) and not filename and self._stage.is_whole:
            return self  # the table is in memory already
        return Dataset(Cache(self._stage, filename or None))

    def prefetch(self, buffer_size: int | None = None) -> Dataset:
        """Up to `buffer_size` elements made ahead by a thread, so that work on the data and on the
        model overlap. AUTOTUNE means 2, and none as long as making one takes less time than handing
        it over.

        >>> [int(x) for x in graphnn.data.Dataset.range(3).prefetch(graphnn.data.AUTOTUNE)]
        [0, 1, 2]
        """
        ahead = check.ahead(buffer_size)
        tuned = buffer_size in (None, check.AUTOTUNE)
        return Dataset(Prefetch(self._stage, ahead, tuned)) if ahead else self

    # ---- questions and iteration -------------------------------------------------------------

    @property
    def element_spec(self) -> Any:
        """The structure of an element with a TensorSpec at each leaf.

        >>> graphnn.data.Dataset.from_tensor_slices(([[1.0, 2.0]], [3])).batch(8).element_spec
        (TensorSpec(shape=(None, 2), dtype=float32), TensorSpec(shape=(None,), dtype=int32))
        """
        return self._stage.spec()

    def cardinality(self) -> Tensor:
        """Number of elements, INFINITE_CARDINALITY (-1) or UNKNOWN_CARDINALITY (-2), int64.

        >>> int(graphnn.data.Dataset.range(5).batch(2).cardinality())
        3
        """
        return Tensor(np.asarray(self._stage.size(), np.int64))

    def __len__(self) -> int:
        size = self._stage.size()
        if size >= 0:
            return size
        raise check.no_length(self._stage, size)

    def __bool__(self) -> bool:
        return True  # without this, `if dataset` would ask for its length

    def __iter__(self) -> DatasetIterator:
        return DatasetIterator(self._stage)

    def iterator(self, state: Any = None, reuse: bool = False) -> DatasetIterator:
        """An iterator, at a saved position if one is given.

        state: what `DatasetIterator.state` gave, or a path that `DatasetIterator.save` wrote. The
        pipeline must be built as it was then, else StateError is raised; later epochs go on from
        there too. reuse: whether the arrays of an element may be used again for the next one, as
        `fit` allows, which saves memory traffic; nothing of an element may then be kept or
        changed.
        """
        return DatasetIterator(self._stage, read_position(state), reuse=reuse)

    def as_numpy_iterator(self) -> Iterator[Any]:
        """The elements as NumPy arrays (read-only) and scalars.

        >>> list(graphnn.data.Dataset.range(3).as_numpy_iterator())
        [np.int64(0), np.int64(1), np.int64(2)]
        """
        return DatasetIterator(self._stage, leaf=to_numpy)

    def get_single_element(self) -> Any:
        """The one element. Raises StateError if there are none or more."""
        with iter(self) as elements:
            found = [element for _, element in builtins.zip((0, 1), elements, strict=False)]
        if len(found) == 1:
            return found[0]
        raise StateError(
            "Dataset.get_single_element",
            received="no element" if not found else "more than one element",
            expected="a dataset of one element",
            fix="use take(1), or batch all elements",
        )

    def __repr__(self) -> str:
        return f"Dataset({self._stage})"
