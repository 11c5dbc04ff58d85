"""Training on several devices: strategies, replicas and their Variables."""

from graphnn.distribute.context import ReplicaContext
from graphnn.distribute.datasets import DistributedDataset, InputContext
from graphnn.distribute.enums import ReduceOp, VariableAggregation, VariableSynchronization
from graphnn.distribute.strategy import (
    MirroredStrategy,
    OneDeviceStrategy,
    Strategy,
    get_replica_context,
    get_strategy,
    has_strategy,
    in_cross_replica_context,
)
from graphnn.distribute.values import PerReplica

DistributedValues = PerReplica

__all__ = [
    "DistributedDataset",
    "DistributedValues",
    "InputContext",
    "MirroredStrategy",
    "OneDeviceStrategy",
    "PerReplica",
    "ReduceOp",
    "ReplicaContext",
    "Strategy",
    "VariableAggregation",
    "VariableSynchronization",
    "get_replica_context",
    "get_strategy",
    "has_strategy",
    "in_cross_replica_context",
]
