"""Strategies: how one step is spread over several devices."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from graphnn import tree
from graphnn.config import canonical_device, list_logical_devices
from graphnn.distribute.context import ReplicaContext, SingleContext, replicate
from graphnn.distribute.datasets import DistributedDataset, DistributedFunctionDataset, InputContext
from graphnn.distribute.enums import ReduceOp
from graphnn.distribute.feeder import Feeder
from graphnn.distribute.reductions import gather, reduce_axis, reduce_structure
from graphnn.distribute.values import PerReplica, regroup, replicas_of, select
from graphnn.distribute.variables import kind_of_variable
from graphnn.function import Function, Method, function
from graphnn.logical import on_backend
from graphnn.runtime.devices import named
from graphnn.runtime.errors import ArgumentError, StateError, hide_own_frames
from graphnn.state import state
from graphnn.traces import EAGER


class Strategy:
    """What all strategies share; by itself the default one, with a single replica.

    devices: names of the logical devices, one for each replica.
    """

    def __init__(self, devices: Sequence[Any] = ("CPU:0",)) -> None:
        self.devices = tuple(map(canonical_device, devices))
        self.backends = _gpus(self.devices, type(self).__name__)
        self._feeder = Feeder(self.backends)
        # What run() has made of @functions: by function, or by the instance of a method.
        self._programs: Any = weakref.WeakKeyDictionary()

    @property
    def num_replicas_in_sync(self) -> int:
        """Number of replicas that train together."""
        return len(self.devices)

    @contextmanager
    def scope(self) -> Iterator[Strategy]:
        """A context in which Variables are made for all replicas.

        Raises StateError inside the scope of another strategy or inside of a replica.
        """
        self._check_scope("scope")
        before, state.strategy = state.strategy, self
        try:
            yield self
        finally:
            state.strategy = before

    def at_home(self) -> AbstractContextManager[None]:
        """A context in which work outside of replicas is on the first GPU; nothing on CPUs."""
        return on_backend(self.backends[0]) if self.backends else nullcontext()

    def feed(self, parts: Sequence[Any]) -> list[Any]:
        """The tensors of each replica on its GPU, copied there while others are computing."""
        return self._feeder(parts)

    # ---- running -------------------------------------------------------------------------

    def run(
        self, fn: Callable[..., Any], args: Any = (), kwargs: Any = None, options: Any = None
    ) -> Any:
        """Run a function once on each replica.

        fn: a function or `@function`. args, kwargs: its arguments; each replica gets its part of
        every PerReplica in them. Fewer replicas run where these have fewer values, as for the rest
        of a dataset. Returns: what fn returns, with a PerReplica at each tensor or number if there
        are several replicas. Raises StateError inside of a replica and ArgumentError for values
        that do not fit.

        >>> strategy = graphnn.distribute.MirroredStrategy(["CPU:0"])
        >>> strategy.run(lambda x: x + 1.0, args=(graphnn.constant(1.0),))
        Tensor(2.0, shape=(), dtype=float32)
        """
        self._check_scope("run")
        call = (tuple(args), dict(kwargs or {}))
        if state.trace is not None:
            return self._replicated(fn, *call)
        try:
            with self.at_home():
                if isinstance(fn, Function | Method) and not EAGER.on:
                    return self._program(fn)(*call)
                return self._replicated(fn, *call)
        except Exception as error:
            raise hide_own_frames(error)  # noqa: B904

    def _replicated(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        count = replicas_of((args, kwargs), self.num_replicas_in_sync, "Strategy.run")
        calls = [select((args, kwargs), i) for i in range(count)]
        return regroup(replicate(self, fn, calls))

    def _program(self, fn: Any) -> Callable[..., Any]:
        """All replicas of a `@function` as one `@function`, since alone they could not meet."""
        owner, key = (fn, None) if isinstance(fn, Function) else (fn.__self__, fn.function)
        known = self._programs.setdefault(owner, {})
        if key not in known:
            python = fn.python_function
            body = python if key is None else _method(python, weakref.ref(owner))

            def step(args: Any, kwargs: Any) -> Any:
                return self._replicated(body, args, kwargs)

            known[key] = function(name=fn.name)(step)
        return known[key]  # type: ignore[no-any-return]

    # ---- combining -----------------------------------------------------------------------

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        """The sum or mean over replicas.

        reduce_op: ReduceOp.SUM or MEAN, or "sum" or "mean". value: what `run` returned, nested at
        will. axis: also reduce over this axis of each value, whose sizes may then differ; None
        keeps all axes. Raises StateError inside of a replica.

        >>> strategy = graphnn.distribute.MirroredStrategy(["CPU:0"])
        >>> strategy.reduce("sum", strategy.run(lambda: graphnn.constant([1.0, 2.0])), axis=0)
        Tensor(3.0, shape=(), dtype=float32)
        """
        self._check_across("reduce")
        kind = ReduceOp.of(reduce_op, "Strategy.reduce")
        values = self._parts(value)
        with self.at_home():
            if axis is None:
                return reduce_structure(kind, values)
            columns = zip(*map(tree.flatten, values), strict=True)
            return tree.unflatten(values[0], [reduce_axis(kind, c, axis) for c in columns])

    def gather(self, value: Any, axis: int) -> Any:
        """The values of the replicas one after the other along an axis."""
        self._check_across("gather")
        values = self._parts(value)
        columns = zip(*map(tree.flatten, values), strict=True)
        with self.at_home():
            return tree.unflatten(values[0], [gather(c, axis) for c in columns])

    def _parts(self, value: Any) -> list[Any]:
        """The structure of each replica; a value without parts stands on all of them."""
        count = replicas_of(value, self.num_replicas_in_sync, "the values of replicas")
        return [select(value, i) for i in range(count)]

    def experimental_local_results(self, value: Any) -> tuple[Any, ...]:
        """The values of the replicas of this process, in a tuple."""
        return value.values if isinstance(value, PerReplica) else (value,)

    # ---- data ----------------------------------------------------------------------------

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> Any:
        """A dataset whose batches are split over the replicas: structures of PerReplicas.

        dataset: an iterable of global batches. The examples of a batch that does not divide go to
        the first replicas. Iterating raises ArgumentError if the first batch has fewer examples
        than there are replicas.
        """
        return DistributedDataset(dataset, self.num_replicas_in_sync, self.feed)

    def distribute_datasets_from_function(
        self, dataset_fn: Callable[[InputContext], Any], options: Any = None
    ) -> Any:
        """A dataset from a function of an InputContext, which returns a dataset of batches for one
        replica; each step takes one for each replica."""
        context = InputContext(num_replicas_in_sync=self.num_replicas_in_sync)
        count = self.num_replicas_in_sync
        return DistributedFunctionDataset(dataset_fn(context), count, self.feed)

    def experimental_distribute_values_from_function(
        self, value_fn: Callable[[ReplicaContext], Any]
    ) -> Any:
        """A PerReplica of what a function of a context (`replica_id_in_sync_group`) returns."""
        count = self.num_replicas_in_sync
        return regroup([value_fn(ReplicaContext(self, i)) for i in range(count)])

    # ---- checks --------------------------------------------------------------------------

    def kind_of_variable(self, cls: Any, synchronization: Any) -> Any:
        """The class of a Variable that is made under this strategy."""
        return kind_of_variable(cls, synchronization)

    def _check_across(self, what: str) -> None:
        if state.replica is not None:
            raise StateError(
                f"Strategy.{what}",
                received="a call inside of a replica",
                expected="a call outside of the function given to strategy.run",
                fix="in a replica, graphnn.distribute.get_replica_context() has all_reduce, "
                "all_gather and merge_call",
            )

    def _check_scope(self, what: str) -> None:
        self._check_across(what)
        if state.strategy is not None and state.strategy is not self:
            raise StateError(
                f"Strategy.{what}",
                received="a call in the scope of another strategy",
                expected="one strategy at a time",
                fix="leave the other scope first",
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {', '.join(self.devices)}>"


def _gpus(devices: Sequence[str], subject: str) -> tuple[Any, ...]:
    """The backends of a strategy's GPUs, none for one on CPUs."""
    on_gpu = [":GPU:" in name for name in devices]
    if any(on_gpu) and not all(on_gpu):
        raise ArgumentError(
            subject,
            received="the devices " + ", ".join(devices),
            expected="devices of one kind",
            fix='name GPUs only, for example ["GPU:0", "GPU:1"]',
        )
    return tuple(map(named, devices)) if any(on_gpu) else ()


def _method(python: Callable[..., Any], owner: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: python(owner(), *args, **kwargs)


class MirroredStrategy(Strategy):
    """Trains on several devices of this machine: each holds the same weights and takes its part of
    every batch.

    devices: names or LogicalDevices; by default all logical GPUs, or CPUs where there is no GPU.
    cross_device_ops: accepted for TensorFlow code. Raises ArgumentError for devices that are not
    there, named twice, or of both kinds.

    >>> strategy = graphnn.distribute.MirroredStrategy()
    >>> with strategy.scope():
    ...     model = graphnn.keras.Sequential([graphnn.keras.layers.Dense(1)])
    ...     model.compile(optimizer="sgd", loss="mse")
    >>> history = model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    """

    def __init__(self, devices: Sequence[Any] | None = None, cross_device_ops: Any = None) -> None:
        chosen: Any = devices
        if devices is None:
            chosen = list_logical_devices("GPU") or list_logical_devices("CPU")
        chosen = [chosen] if isinstance(chosen, str) else list(chosen)
        super().__init__(chosen)
        if not self.devices or len(set(self.devices)) < len(self.devices):
            raise ArgumentError(
                "MirroredStrategy",
                received=f"the devices {', '.join(self.devices) or 'of an empty list'}",
                expected="at least one device, each once",
                fix='for example devices=["CPU:0", "CPU:1"], after '
                "config.set_logical_device_configuration has made two of the CPU",
            )


class OneDeviceStrategy(Strategy):
    """One replica on a device of choice. device: a name such as "CPU:0".

    >>> graphnn.distribute.OneDeviceStrategy("CPU:0").num_replicas_in_sync
    1
    """

    def __init__(self, device: Any) -> None:
        super().__init__([device])


DEFAULT = Strategy()
_DEFAULT_CONTEXT = SingleContext(DEFAULT, 0)


def get_strategy() -> Strategy:
    """The strategy whose scope is open, or the default one with a single replica.

    >>> graphnn.distribute.get_strategy().num_replicas_in_sync
    1
    """
    return DEFAULT if state.strategy is None else state.strategy


def has_strategy() -> bool:
    """Whether the scope of a strategy is open.

    >>> graphnn.distribute.has_strategy()
    False
    """
    return state.strategy is not None


def get_replica_context() -> ReplicaContext | None:
    """The replica that runs; None in a scope but outside of replicas.

    Without a strategy it is the only replica of the default one.

    >>> graphnn.distribute.get_replica_context().num_replicas_in_sync
    1
    """
    if state.replica is None and state.strategy is None:
        return _DEFAULT_CONTEXT
    return state.replica  # type: ignore[no-any-return]


def in_cross_replica_context() -> bool:
    """Whether the scope of a strategy is open, outside of its replicas.

    >>> graphnn.distribute.in_cross_replica_context()
    False
    """
    return state.replica is None and state.strategy is not None
