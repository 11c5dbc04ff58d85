"""Input pipelines: read, transform, shuffle and batch data while a model trains."""

from graphnn.data import experimental
from graphnn.data.dataset import Dataset
from graphnn.data.iterator import DatasetIterator
from graphnn.data.stage import INFINITE as INFINITE_CARDINALITY
from graphnn.data.stage import UNKNOWN as UNKNOWN_CARDINALITY
from graphnn.data.text import TextLineDataset
from graphnn.data.threads import AUTOTUNE

__all__ = [
    "AUTOTUNE",
    "INFINITE_CARDINALITY",
    "UNKNOWN_CARDINALITY",
    "Dataset",
    "DatasetIterator",
    "TextLineDataset",
    "experimental",
]
