"""Layers: the pieces that models are made of."""

from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.core import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    ReLU,
    Rescaling,
    Reshape,
    Softmax,
)
from graphnn.keras.layers.inputs import Input, InputLayer
from graphnn.keras.layers.merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from graphnn.keras.layers.norm import BatchNormalization, LayerNormalization
from graphnn.keras.layers.operation import OpLayer
from graphnn.keras.layers.preprocess_category import CategoryEncoding, Hashing
from graphnn.keras.layers.preprocess_image import CenterCrop, Resizing
from graphnn.keras.layers.preprocess_lookup import IntegerLookup, StringLookup
from graphnn.keras.layers.preprocess_numeric import Discretization, Normalization
from graphnn.keras.layers.preprocess_text import TextVectorization
from graphnn.keras.layers.registry import deserialize, serialize
from graphnn.keras.layers.shaping import Lambda, Masking, Permute, RepeatVector

__all__ = [
    "Activation",
    "Add",
    "Average",
    "BatchNormalization",
    "CategoryEncoding",
    "CenterCrop",
    "Concatenate",
    "Dense",
    "Discretization",
    "Dot",
    "Dropout",
    "Embedding",
    "Flatten",
    "Hashing",
    "Input",
    "InputLayer",
    "IntegerLookup",
    "Lambda",
    "Layer",
    "LayerNormalization",
    "Masking",
    "Maximum",
    "Minimum",
    "Multiply",
    "Normalization",
    "OpLayer",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "Resizing",
    "Softmax",
    "StringLookup",
    "Subtract",
    "TextVectorization",
    "add",
    "average",
    "concatenate",
    "deserialize",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "serialize",
    "subtract",
]
