"""Optimizers: how gradients change Variables. Each states its rule once, for one Variable."""

from graphnn.keras.optimizers import schedules
from graphnn.keras.optimizers.adagrad import Adadelta, Adagrad, Ftrl
from graphnn.keras.optimizers.adam import Adam, Adamax, AdamW, Lamb, Nadam
from graphnn.keras.optimizers.base import Optimizer, deserialize, get, serialize
from graphnn.keras.optimizers.descent import SGD, Lion, RMSprop
from graphnn.keras.optimizers.loss_scale import LossScaleOptimizer
from graphnn.keras.optimizers.loss_scale import with_loss_scale as with_loss_scale

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]
