"""`cudnn` (nvidia-cudnn-frontend) on host memory: graphs of one attention, in the order of calls
and with the attributes that the real one asks for."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tests.cuda import library_calls
from tests.cuda.stand_in import package
from tests.cuda.stand_in.machine import gpu

MAX_DEPTH = 256  # of heads, forward
MAX_GRADIENT_DEPTH = 128
DEPTH_MULTIPLE = 8
WORKSPACE = 4096


class data_type(enum.Enum):
    FLOAT, DOUBLE, HALF, BFLOAT16, NOT_SET = range(5)


KINDS = {
    data_type.FLOAT: np.dtype(np.float32),
    data_type.HALF: np.dtype(np.float16),
    data_type.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


class heur_mode(enum.Enum):
    A, B, FALLBACK = range(3)


class cudnnGraphNotSupportedError(RuntimeError):
    """No plan for a graph."""


class Handle:
    """A handle with its stream."""

    def __init__(self) -> None:
        self.stream = 0


def create_handle() -> Handle:
    return Handle()


def set_stream(handle: Handle, stream: int) -> None:
    if not isinstance(handle, Handle):
        raise TypeError("cudnn.set_stream expects a cudnn.Handle")
    handle.stream = stream


def backend_version() -> int:
    return 92801


class Tensor:
    """A tensor of a graph; outputs get what they need by setters."""

    def __init__(
        self, name: str, dim: Any, stride: Any, kind: Any, uid: int, virtual: bool
    ) -> None:
        self.name, self.dim, self.stride = name, list(dim), list(stride)
        self.kind, self.uid, self.is_virtual = kind, uid, virtual

    def set_output(self, value: bool) -> Tensor:
        self.is_virtual = not value
        return self

    def set_dim(self, dim: Sequence[int]) -> Tensor:
        self.dim = list(dim)
        return self

    def set_stride(self, stride: Sequence[int]) -> Tensor:
        self.stride = list(stride)
        return self

    def set_data_type(self, kind: data_type) -> Tensor:
        self.kind = kind
        return self

    def set_uid(self, uid: int) -> Tensor:
        self.uid = uid
        return self

    def set_name(self, name: str) -> Tensor:
        self.name = name
        return self

    @property
    def nbytes(self) -> int:
        last = sum((n - 1) * s for n, s in zip(self.dim, self.stride, strict=True))
        return (last + 1) * KINDS[self.kind].itemsize

    def view(self, address: int) -> Any:
        kind = KINDS[self.kind]
        memory = gpu.memory(address, self.nbytes).view(kind)
        strides = [s * kind.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(memory, self.dim, strides)


STEPS = ("validate", "build_operation_graph", "create_execution_plans", "check_support",
         "build_plans")  # fmt: skip


class pygraph:
    """A graph; the methods in `STEPS` must be called in that order."""

    def __init__(
        self,
        name: str = "test_graph",
        io_data_type: Any = None,
        intermediate_data_type: Any = None,
        compute_data_type: Any = None,
        handle: Any = None,
    ) -> None:
        if intermediate_data_type != data_type.FLOAT or compute_data_type != data_type.FLOAT:
            raise cudnnGraphNotSupportedError("attention computes in float32")
        self.io = io_data_type
        self.tensors: list[Tensor] = []
        self.ports: dict[str, Tensor] = {}
        self.settings: dict[str, Any] = {}
        self.done = 0

    def tensor(
        self, dim: Any, stride: Any = None, data_type: Any = None, uid: int = -1, name: str = ""
    ) -> Tensor:
        if len(dim) != 4 or len(stride) != 4:
            raise ValueError("tensors of attention have 4 axes")
        if uid in [t.uid for t in self.tensors]:
            raise ValueError(f"uid {uid} is taken")
        made = Tensor(name, dim, stride, data_type or self.io, uid, False)
        self.tensors.append(made)
        return made

    def _result(self, port: str) -> Tensor:
        made = Tensor(port, (), (), None, -1, True)
        self.ports[port] = made
        self.tensors.append(made)
        return made

    def sdpa(
        self, q: Tensor, k: Tensor, v: Tensor, attn_scale: float | None = None,
        use_causal_mask: bool = False, generate_stats: bool | None = None, name: str = "",
    ) -> list[Any]:  # fmt: skip
        if generate_stats is None:
            raise ValueError("generate_stats must be said")
        self.ports = {"q": q, "k": k, "v": v}
        self.settings = {"scale": attn_scale, "causal": use_causal_mask}
        out = self._result("out")
        return [out, self._result("stats") if generate_stats else None]

    def sdpa_backward(
        self, q: Tensor, k: Tensor, v: Tensor, o: Tensor, dO: Tensor, stats: Tensor,
        attn_scale: float | None = None, use_causal_mask: bool = False,
        use_deterministic_algorithm: bool = False, name: str = "",
    ) -> list[Any]:  # fmt: skip
        self.ports = {"q": q, "k": k, "v": v, "out": o, "g": dO, "stats": stats}
        self.settings = {"scale": attn_scale, "causal": use_causal_mask}
        return [self._result(n) for n in ("dq", "dk", "dv")]

    # ---- from a graph to a plan --------------------------------------------------------------

    def _step(self, name: str) -> None:
        if STEPS[self.done] != name:
            raise RuntimeError(f"{name} called where {STEPS[self.done]} is due")
        self.done += 1

    def validate(self) -> None:
        self._step("validate")
        for port, t in self.ports.items():
            if t.is_virtual:
                continue
            if len(t.dim) != 4 or len(t.stride) != 4 or t.kind is None:
                raise cudnnGraphNotSupportedError(f"{port} has no shape, strides or type")
            is_stats = port == "stats"
            short = self.io in (data_type.HALF, data_type.BFLOAT16)
            if not short or t.kind != (data_type.FLOAT if is_stats else self.io):
                raise cudnnGraphNotSupportedError(f"{port} is {t.kind}")
            if not is_stats and t.stride[3] != 1:
                raise cudnnGraphNotSupportedError(f"{port} has strides {t.stride}")
        self._check_shapes()

    def _check_shapes(self) -> None:
        q, k, v = (self.ports[n].dim for n in "qkv")
        most = MAX_GRADIENT_DEPTH if "dq" in self.ports else MAX_DEPTH
        if any(d % DEPTH_MULTIPLE or d > most for d in (q[3], v[3])):
            raise cudnnGraphNotSupportedError(f"heads of depth {q[3]} and {v[3]}")
        if k[:3] != v[:3] or q[0] != k[0] or q[3] != k[3] or q[1] % k[1]:
            raise cudnnGraphNotSupportedError(f"shapes {q}, {k} and {v}")
        out = [*q[:3], v[3]]
        wanted = {"out": out, "g": out, "stats": [*q[:3], 1], "dq": q, "dk": k, "dv": v}
        for port, dim in wanted.items():
            t = self.ports.get(port)
            if t is not None and not t.is_virtual and t.dim != dim:
                raise cudnnGraphNotSupportedError(f"{port} has shape {t.dim}")

    def build_operation_graph(self) -> None:
        self._step("build_operation_graph")

    def create_execution_plans(self, modes: Sequence[heur_mode]) -> None:
        self._step("create_execution_plans")
        if not all(isinstance(m, heur_mode) for m in modes):
            raise TypeError("heuristics are heur_mode values")

    def check_support(self) -> None:
        self._step("check_support")

    def build_plans(self) -> None:
        self._step("build_plans")

    def get_workspace_size(self) -> int:
        if self.done < len(STEPS):
            raise RuntimeError("Call build() first")
        return WORKSPACE

    # ---- running -----------------------------------------------------------------------------

    def execute(self, pack: dict[int, int], workspace: int, handle: Handle) -> None:
        if self.done < len(STEPS) or not isinstance(handle, Handle):
            raise RuntimeError("a graph runs after its plans were built, with a handle")
        own = {n: t for n, t in self.ports.items() if not t.is_virtual}
        if set(pack) != {t.uid for t in own.values()}:
            raise ValueError(f"addresses for {sorted(pack)}, tensors {own.keys()}")
        if any(a % 16 for a in pack.values()):
            raise RuntimeError("an address is not a multiple of 16 bytes")
        spans = [(pack[t.uid], t.nbytes) for t in own.values()]

        def work() -> None:
            views = {n: t.view(pack[t.uid]) for n, t in own.items()}
            arrays = {n: np.asarray(a, np.float32) for n, a in views.items()}
            backward = "dq" in self.ports
            rule = library_calls.attention_gradients if backward else library_calls.attention
            found = rule(arrays, self.settings["scale"], self.settings["causal"])
            for name, value in found.items():
                if name in views:
                    views[name][...] = value.astype(views[name].dtype)

        gpu.kernel("cudnn.attention", work, [*spans, (workspace, WORKSPACE)], handle.stream)


PUBLIC = (
    data_type, heur_mode, cudnnGraphNotSupportedError, Handle, create_handle, set_stream,
    backend_version, pygraph,
)  # fmt: skip


def modules() -> dict[str, Any]:
    """The package."""
    names: dict[str, Any] = {p.__name__: p for p in PUBLIC}
    return {"cudnn": package("cudnn", **names, __version__="1.28.0")}
