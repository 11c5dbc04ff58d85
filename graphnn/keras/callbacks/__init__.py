"""Callbacks: objects that a model calls at the beginning and end of epochs, batches and runs."""

from graphnn.keras.callbacks.averages import SwapEMAWeights
from graphnn.keras.callbacks.backup import BackupAndRestore
from graphnn.keras.callbacks.base import Callback, CallbackList
from graphnn.keras.callbacks.board import TensorBoard
from graphnn.keras.callbacks.checkpoint import ModelCheckpoint
from graphnn.keras.callbacks.csvlog import CSVLogger
from graphnn.keras.callbacks.history import History, LambdaCallback
from graphnn.keras.callbacks.monitor import EarlyStopping, MonitorCallback, ReduceLROnPlateau
from graphnn.keras.callbacks.progress import ProgbarLogger
from graphnn.keras.callbacks.rates import LearningRateScheduler, TerminateOnNaN

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]
