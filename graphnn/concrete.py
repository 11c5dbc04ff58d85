"""One trace of a `@function`, compiled: a graph, what it reads from outside, and how to call it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.apply import apply, convert, node_of
from graphnn.compiler.executable import Executable, compile_graph
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.text import print_graph
from graphnn.compiler.ir.types import TensorType, describe
from graphnn.compiler.ops.call import Call
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.trace import Trace
from graphnn.runtime.errors import ArgumentError
from graphnn.signature import Signature, TensorLeaf, Walk
from graphnn.state import state
from graphnn.tensor import Operand, Tensor, Traced
from graphnn.variable import EPOCH
