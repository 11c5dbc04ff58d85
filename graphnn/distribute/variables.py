"""Variables under a strategy: one value for all replicas, or one for each that are read together.

Replicas on one CPU share its memory and get equal new values at the same point, so a mirrored
Variable needs one buffer only. On GPUs it has one on each: compiled programs write all of them, and
eager code writes the first one and sends it to the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn.apply import TENSOR_OPS
from graphnn.compiler.ir.types import is_float
from graphnn.distribute.enums import ReduceOp, VariableAggregation, VariableSynchronization
from graphnn.distribute.reductions import all_reduce
from graphnn.logical import on_backend
from graphnn.runtime import devices
from graphnn.runtime.errors import StateError
from graphnn.state import state
from graphnn.tensor import Tensor
from graphnn.variable import Variable


class DistributedVariable(Variable):
    """What both kinds share: they know their strategy and how values are combined."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        subject = f"Variable {kwargs.get('name') or ''}".rstrip()
        self.strategy = state.strategy
        self.synchronization = VariableSynchronization.of(kwargs.get("synchronization"), subject)
        self.aggregation = VariableAggregation.of(kwargs.get("aggregation"), subject)
        with self.strategy.at_home():
            super().__init__(*args, **kwargs)

    def _part_on(self, replica: int, start: Any) -> _Part:
        """A copy for a replica, on its device."""
        strategy = self.strategy
        with on_backend(strategy.backends[replica] if strategy.backends else None):
            part = _Part(start, trainable=self.trainable, name=f"{self.name}/replica_{replica}")
        part.device_name = strategy.devices[replica]
        return part

    def _move(self, backend: Any) -> None:
        """It stays on the devices of its strategy."""
        if not self.strategy.backends:
            super()._move(backend)


class MirroredVariable(DistributedVariable):
    """A Variable with the same value on all replicas.

    Outside of replicas it is assigned like any other. In a replica, the values that the replicas
    assign are combined by `aggregation` first, and all go on with the result. copies: on GPUs the
    Variables of the replicas, the first of which is this one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.copies: tuple[Variable, ...] = ()
        super().__init__(*args, **kwargs)
        if len(self.strategy.backends) > 1:
            others = range(1, len(self.strategy.backends))
            self.copies = (self, *(self._part_on(i, Tensor(self._buffer)) for i in others))

    def _places(self) -> dict[str, Any]:
        if not self.strategy.backends:
            return super()._places()
        names = self.strategy.devices
        return {n: v._buffer for n, v in zip(names, self.copies or (self,), strict=True)}

    def _on(self, backend: Any) -> Any:
        buffers = (v._buffer for v in self.copies)
        return next((b for b in buffers if devices.backend_of(b) is backend), self._buffer)

    def _handle(self) -> Tensor:
        if self.copies and state.replica is not None:
            own: Variable = self.copies[state.replica.replica_id_in_sync_group]
            if own is not self:
                return own._handle()
        return super()._handle()

    def _write(self, array: Any) -> None:
        super()._write(array)
        for copy in self.copies[1:]:
            copy._detach_reads()
            there = devices.backend_of(copy._buffer)
            there.copy(copy._buffer, devices.move(self._buffer, there))

    def assign(self, value: Any, *args: Any, **kwargs: Any) -> Variable:
        if state.replica is None:
            return super().assign(value, *args, **kwargs)
        return self._together("assign", self._fitting(value, "assign"), super().assign)

    def assign_add(self, delta: Any, *args: Any, **kwargs: Any) -> Variable:
        if state.replica is None:
            return super().assign_add(delta, *args, **kwargs)
        change = self._fitting(delta, "assign_add", stretch=True)
        return self._together("assign_add", change, super().assign_add)

    def assign_sub(self, delta: Any, *args: Any, **kwargs: Any) -> Variable:
        if state.replica is None:
            return super().assign_sub(delta, *args, **kwargs)
        change = self._fitting(delta, "assign_sub", stretch=True)
        return self._together("assign_sub", change, super().assign_sub)

    def _together(self, name: str, value: Tensor, write: Any) -> Variable:
        """Combine the replicas' values and write once."""
        if self.aggregation is VariableAggregation.NONE:
            raise StateError(
                f"{name} of Variable {self.name!r}",
                received="a value from each replica, and no rule that makes one of them",
                expected="a Variable made with aggregation=, or one with a copy on each replica",
                fix="make it with aggregation=graphnn.VariableAggregation.MEAN (or SUM, "
                'ONLY_FIRST_REPLICA), or with synchronization="on_read"',
            )

        def combine(values: list[Tensor]) -> list[None]:
            write(combined(self.aggregation, values))
            return [None] * len(values)

        state.replica.meet(f"{name} of {self.name}", value, combine)
        return self

    def _scatter(self, sparse: Any, updates: Any, mode: str) -> Variable:
        if state.replica is not None and self.aggregation is VariableAggregation.SUM:
            raise StateError(
                f"a scatter into Variable {self.name!r}",
                received="rows from each replica, for a Variable with aggregation=SUM",
                expected="aggregation MEAN or ONLY_FIRST_REPLICA",
                fix="make a dense change of it and call assign_add",
            )
        return super()._scatter(sparse, updates, mode)


def combined(aggregation: VariableAggregation, values: list[Tensor]) -> Tensor:
    """One value from those of the replicas; integers have no mean but their common value."""
    first = aggregation is VariableAggregation.ONLY_FIRST_REPLICA
    if first or (aggregation is not VariableAggregation.SUM and not is_float(values[0].dtype)):
        return values[0]
    kind = ReduceOp.SUM if aggregation is VariableAggregation.SUM else ReduceOp.MEAN
    return all_reduce(kind, [[v] for v in values])[0]  # type: ignore[no-any-return]


class _Part(Variable):
    """The copy of one replica. device_name: of its logical device."""

    device_name = ""

    def _places(self) -> dict[str, Any]:
        on_gpu = devices.is_device_array(self._buffer)
        return {self.device_name: self._buffer} if on_gpu else super()._places()


class SyncOnReadVariable(DistributedVariable):
    """A Variable with a copy for each replica, combined by `aggregation` when it is read outside.

    The first replica's copy is its own buffer. Assigned outside of replicas, a sum is put into the
    first copy and the others become zero; otherwise all copies get the value.
    """

    def __init__(self, *args: Any, trainable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(*args, trainable=bool(trainable), **kwargs)
        adds = self.aggregation is VariableAggregation.SUM
        start = np.zeros(self.shape, self.dtype) if adds else Tensor(self._buffer)
        others = range(1, self.strategy.num_replicas_in_sync)
        self.parts: tuple[Variable, ...] = (self, *(self._part_on(i, start) for i in others))

    def _places(self) -> dict[str, Any]:
        on_gpu = bool(self.strategy.backends)
        return {self.strategy.devices[0]: self._buffer} if on_gpu else super()._places()

    def _part(self) -> Variable:
        """The copy of the replica that runs."""
        number: int = state.replica.replica_id_in_sync_group
        return self.parts[number]

    def _tensor(self) -> Tensor:
        if state.replica is not None:
            part = self._part()
            return super()._tensor() if part is self else part._tensor()
        if len(self.parts) == 1 or self.aggregation in (
            VariableAggregation.NONE,
            VariableAggregation.ONLY_FIRST_REPLICA,
        ):
            return super()._tensor()
        values = [super()._tensor(), *(part._tensor() for part in self.parts[1:])]
        return combined(self.aggregation, values)

    def _array(self, what: str) -> Any:
        if state.trace is not None:
            return super()._array(what)
        return devices.on_host(self._tensor()._value)

    @property
    def initial_value(self) -> Tensor:
        """The current value as a tensor of its own (the first one is not kept)."""
        return TENSOR_OPS.identity(self._tensor())  # type: ignore[no-any-return]

    def assign(self, value: Any, *args: Any, **kwargs: Any) -> Variable:
        if state.replica is not None:
            return self._own("assign", value)
        super().assign(value)
        adds = self.aggregation is VariableAggregation.SUM
        for part in self.parts[1:]:
            part.assign(TENSOR_OPS.zeros_like(part._quiet_read()) if adds else value)
        return self

    def assign_add(self, delta: Any, *args: Any, **kwargs: Any) -> Variable:
        return self._change("assign_add", delta)

    def assign_sub(self, delta: Any, *args: Any, **kwargs: Any) -> Variable:
        return self._change("assign_sub", delta)

    def _change(self, name: str, delta: Any) -> Variable:
        if state.replica is not None:
            return self._own(name, delta)
        adds = self.aggregation is VariableAggregation.SUM
        for part in self.parts[: 1 if adds else None]:
            getattr(Variable, name)(part, delta)
        return self

    def _own(self, name: str, value: Any) -> Variable:
        """Change this replica's copy."""
        getattr(Variable, name)(self._part(), value)
        return self

    def _scatter(self, sparse: Any, updates: Any, mode: str) -> Variable:
        self._check_replica()
        return Variable._scatter(self._part(), sparse, updates, mode)

    def _scatter_nd(self, indices: Any, updates: Any, mode: str) -> Variable:
        self._check_replica()
        return Variable._scatter_nd(self._part(), indices, updates, mode)

    def _check_replica(self) -> None:
        if state.replica is None:
            raise StateError(
                f"a scatter into Variable {self.name!r}",
                received="a call outside of the replicas, each of which has a copy",
                expected="a call inside of a function given to strategy.run",
                fix="read the Variable, change the value, and assign it",
            )


def kind_of_variable(cls: type[Variable], synchronization: Any) -> type[Variable]:
    """The class of a Variable made under a strategy."""
    chosen = VariableSynchronization.of(synchronization, "Variable")
    if chosen is VariableSynchronization.NONE:
        return cls
    return SyncOnReadVariable if chosen is VariableSynchronization.ON_READ else MirroredVariable
