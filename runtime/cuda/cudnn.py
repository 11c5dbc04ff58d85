"""Attention by cuDNN through `nvidia-cudnn-frontend`: a graph of one operation for each problem.

A graph is built, and its plan compiled, at the first run of a problem; later runs are one call with
raw addresses. `BUILDERS` says how each kind of run becomes a graph: convolutions will join there.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from graphnn.runtime.device import AttentionRun, DeviceFacts, StridedTensor
from graphnn.runtime.settings import settings

NAMES = {"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT", "float64": "DOUBLE"}
FIRST_UID = 1  # a tensor's uid is its position in the run and this
# Versions of the library. On GPUs of generation 10 the gradient has one order since 9.18.
LEAST_VERSION, LEAST_VERSION_10 = 91000, 91800
# Before this one the frontend pads the gradient's keys to whole tiles, by lengths that it copies
# from memory of its own, which is gone when a captured graph is replayed.
PADS_ALONE, TILE = 91501, 128
UNIT = 1 << 20  # bytes; workspaces grow by multiples of it


def is_available(capability: tuple[int, int] = (9, 0)) -> bool:
    """Whether cuDNN is wanted and there: the frontend, and a library that is new enough.

    capability: of the GPU.
    """
    if not settings.cudnn:
        return False
    if "cudnn" not in sys.modules and importlib.util.find_spec("cudnn") is None:
        return False
    try:
        import cudnn

        version = int(cudnn.backend_version())
    except Exception:  # of several classes: no library, one of another CUDA, another package
        return False
    return version >= (LEAST_VERSION_10 if capability[0] >= 10 else LEAST_VERSION)


class Cudnn:
    """Plans of all operations of a device. Nothing is loaded before the first run."""

    def __init__(self, facts: DeviceFacts) -> None:
        self.facts = facts
        self._handle: Any = None
        self._plans: dict[Any, Any] = {}
        self._memory: dict[int, list[tuple[int, Any]]] = {}
        self._lock = threading.Lock()  # a handle has one stream at a time

    def run(self, run: AttentionRun, addresses: Sequence[int], stream: int, owner: int = 0) -> None:
        """Start an operation on a stream.

        addresses: one for each tensor of the run. owner: stream on which the work will run in the
        end (of a capture: the one that replays); each has its own workspace.
        """
        with self._lock:
            graph, nbytes = self._plan(run)
            places = {FIRST_UID + k: _start(t, a) for k, (t, a) in enumerate(
                zip(run.tensors, addresses, strict=True)
            )}  # fmt: skip
            self.library.set_stream(handle=self.handle, stream=stream)
            graph.execute(places, self._workspace(nbytes, owner), handle=self.handle)

    @property
    def library(self) -> Any:
        """The frontend."""
        import cudnn

        return cudnn

    @property
    def handle(self) -> Any:
        """The library's handle, made at first use on the current device."""
        if self._handle is None:
            self._handle = self.library.create_handle()
        return self._handle

    def _plan(self, run: AttentionRun) -> tuple[Any, int]:
        """A problem's compiled graph and the bytes that it works in."""
        key = replace(run, operands=())
        if key not in self._plans:
            self._refuse_padding(run)
            graph = graph_of(self.library, run, handle=self.handle)
            try:
                self._build(graph)
            except Exception as error:  # of several classes, by the version of the frontend
                raise RuntimeError(
                    f"cuDNN has no plan for {key}; graphnn.runtime.settings.settings.cudnn = False "
                    "before the function is compiled leaves attention to kernels"
                ) from error
            self._plans[key] = graph, int(graph.get_workspace_size())
        return self._plans[key]  # type: ignore[no-any-return]

    def _refuse_padding(self, run: AttentionRun) -> None:
        keys = next(t for t in run.tensors if t.name == "k").shape[2]
        version = int(self.library.backend_version())
        if run.backward and keys % TILE and version < PADS_ALONE:
            raise RuntimeError(
                f"cuDNN {version} cannot be captured with {keys} keys, no multiple of {TILE}; use "
                "cuDNN 9.15.1 or newer, or set graphnn.runtime.settings.settings.cudnn = False "
                "before the function is compiled"
            )

    def _build(self, graph: Any) -> None:
        """Choose and compile a plan."""
        modes = self.library.heur_mode
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([modes.A, modes.FALLBACK])
        graph.check_support()
        graph.build_plans()

    def _workspace(self, nbytes: int, owner: int) -> int:
        """Address of memory for one operation of a stream. Smaller pieces stay alive, for captured
        graphs hold their addresses."""
        kept = self._memory.setdefault(owner, [])
        if not kept or kept[-1][0] < nbytes:
            import cupy

            size = max(UNIT, -(-nbytes // UNIT) * UNIT)
            kept.append((size, cupy.cuda.alloc(size)))
        return int(kept[-1][1].ptr)


Attentions = Cudnn  # what the driver asks for attention


def _start(tensor: StridedTensor, address: int) -> int:
    size = {"HALF": 2, "BFLOAT16": 2, "FLOAT": 4, "DOUBLE": 8}[NAMES[tensor.dtype]]
    return address + tensor.offset * size


def graph_of(cudnn: Any, run: AttentionRun, **settings: Any) -> Any:
    """The frontend's graph of a run; not validated yet. settings: of the graph, e.g. a handle."""
    float32 = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=_kind(cudnn, run.tensors[0]),
        intermediate_data_type=float32,
        compute_data_type=float32,
        **settings,
    )
    BUILDERS[type(run)](cudnn, graph, run)
    return graph


def _kind(cudnn: Any, tensor: StridedTensor) -> Any:
    return getattr(cudnn.data_type, NAMES[tensor.dtype])


def _attention(cudnn: Any, graph: Any, run: AttentionRun) -> None:
    """Scaled dot-product attention or its gradients; the latter in one order, so that two runs give
    the same bits."""
    uids = {t.name: FIRST_UID + k for k, t in enumerate(run.tensors)}
    own = {t.name: t for t in run.tensors}
    results = ("dq", "dk", "dv") if run.backward else ("out", "stats")
    inputs = {
        n: graph.tensor(
            dim=list(t.shape),
            stride=list(t.strides),
            data_type=_kind(cudnn, t),
            uid=uids[n],
            name=n,
        )
        for n, t in own.items()
        if n not in results
    }
    masks = {"attn_scale": run.scale, "use_causal_mask": run.causal}
    q, k, v = (inputs[n] for n in "qkv")
    if run.backward:
        made = graph.sdpa_backward(
            q=q,
            k=k,
            v=v,
            o=inputs["out"],
            dO=inputs["g"],
            stats=inputs["stats"],
            use_deterministic_algorithm=True,
            name="attention_gradient",
            **masks,
        )
    else:
        keeps = "stats" in own
        made = graph.sdpa(q=q, k=k, v=v, generate_stats=keeps, name="attention", **masks)
    for name, tensor in zip(results, made, strict=False):
        if name in own:
            _output(cudnn, tensor, own[name], uids[name])


def _output(cudnn: Any, tensor: Any, wanted: StridedTensor, uid: int) -> None:
    tensor.set_output(True).set_dim(list(wanted.shape)).set_stride(list(wanted.strides))
    tensor.set_data_type(_kind(cudnn, wanted)).set_uid(uid)


BUILDERS: dict[type, Callable[[Any, Any, Any], None]] = {AttentionRun: _attention}
