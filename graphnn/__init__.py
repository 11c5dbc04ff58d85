"""graphnn: eager TF2/Keras-style Python, compiled to one native program by one decorator."""

from importlib import import_module as _import_module
from pathlib import Path

# In a checkout the folders compiler/ and runtime/ stand beside graphnn/, not inside it.
_here = Path(__file__).resolve().parent
if not (_here / "compiler").is_dir() and (_here.parent / "compiler" / "__init__.py").is_file():
    __path__.append(str(_here.parent))

# Imports come after the cure of __path__. Operators and methods define themselves on Tensor.
from graphnn import autodiff, dtypes, linalg, math, nn, ops, random, tf_names, tree  # noqa: E402
from graphnn import methods as _methods  # noqa: E402
from graphnn import operators as _operators  # noqa: E402
from graphnn.function import (  # noqa: E402
    function,
    functions_run_eagerly,
    run_functions_eagerly,
)
from graphnn.runtime import errors  # noqa: E402
from graphnn.signature import TensorSpec  # noqa: E402
from graphnn.state import executing_eagerly, init_scope  # noqa: E402
from graphnn.tape import GradientTape, UnconnectedGradients  # noqa: E402
from graphnn.tensor import Tensor, is_tensor  # noqa: E402
from graphnn.variable import IndexedSlices, Variable  # noqa: E402

__version__ = "0.1.0"

# Modules that are imported when they are first asked for, so that `import graphnn` stays quick.
_LATER = ("keras",)

# NumPy and TensorFlow names at the top level; a later table wins over an earlier one.
_tables = (
    {name: getattr(part, name) for part in (ops, dtypes, autodiff) for name in part.__all__},
    {name: getattr(nn, name) for name in ("relu", "sigmoid", "softmax", "tanh")},
    tf_names.TOP,
)
for _table in _tables:
    globals().update(_table)
_names = {name for _table in _tables for name in _table}

bool = bool_ = dtypes.bool_
nest = tree
pi, e, inf, nan, newaxis = 3.141592653589793, 2.718281828459045, float("inf"), float("nan"), None


def __getattr__(name: str) -> object:
    if name in _LATER:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'graphnn' has no attribute {name!r}")


__all__ = sorted(  # noqa: PLE0605
    {
        *_names,
        *_LATER,
        "GradientTape",
        "IndexedSlices",
        "Tensor",
        "TensorSpec",
        "UnconnectedGradients",
        "Variable",
        "autodiff",
        "bool",
        "dtypes",
        "e",
        "errors",
        "executing_eagerly",
        "function",
        "functions_run_eagerly",
        "inf",
        "init_scope",
        "is_tensor",
        "linalg",
        "math",
        "nan",
        "nest",
        "newaxis",
        "nn",
        "ops",
        "pi",
        "random",
        "run_functions_eagerly",
        "tree",
    }
)
