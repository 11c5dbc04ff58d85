"""The frameworks that cpu.py can time, and the workloads it knows by name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

WORKLOADS = (
    "chain",
    "softmax_xent",
    "layernorm",
    "mlp",
    "mlp_tiny",
    "cnn",
    "gpt_mini",
    "lstm",
    "eager_add",
    "fit",
    "import",
    "gemm",
    "memcpy",
)
# Both or none: a core type of one machine with the cache size of another misleads OpenBLAS.
OPENBLAS_OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# With it a checkout is compiled from source at each import, while installed packages are not.
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True)
class Options:
    """What a peer may ask about the run: its own name, the threads to use, and variants."""

    peer: str
    threads: int
    variants: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Peer:
    """How to use a framework; importing it is left to the module of its workloads.

    source: "module:class"; the class has a method for each workload that it can do.
    imports: what the import workload imports.
    needs: modules without which the peer is left out.
    caches: variables to point at a sub-folder ("" is the folder itself) of the compile cache.
    caches_on_request, settings_on_request: the same for caches that are off by default.
    """

    source: str
    imports: str
    needs: tuple[str, ...]
    caches: Mapping[str, str] = field(default_factory=dict)
    caches_on_request: Mapping[str, str] = field(default_factory=dict)
    settings_on_request: Mapping[str, str] = field(default_factory=dict)

    def use_cache(self, folder: Path, asked: bool) -> None:
        """Point the framework's compile caches at a folder, through the environment."""
        for name, below in self.caches.items():
            os.environ[name] = str(folder / below)
        if not asked:
            return
        for name, below in self.caches_on_request.items():
            os.environ[name] = str(folder / below)
        os.environ.update(self.settings_on_request)


def environment() -> dict[str, str]:
    """This process's environment without what would make a benchmark process unlike a user's."""
    left_out = (*OPENBLAS_OVERRIDES, NO_BYTECODE)
    return {name: value for name, value in os.environ.items() if name not in left_out}


PEERS = {
    "graphnn": Peer(
        "graphnn_cpu:Graphnn", "graphnn", ("graphnn",), caches={"GRAPHNN_CACHE_DIR": "graphnn"}
    ),
    "numpy": Peer("numpy_cpu:Numpy", "numpy", ("numpy",)),
    "torch-eager": Peer("torch_cpu:Torch", "torch", ("torch",)),
    "torch-compile": Peer(
        "torch_cpu:Torch",
        "torch, torch._dynamo, torch._inductor.compile_fx",
        ("torch",),
        caches={"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"},
    ),
    "jax": Peer(
        "jax_cpu:Jax",
        "jax, jax.numpy, optax",
        ("jax", "optax"),
        caches_on_request={"JAX_COMPILATION_CACHE_DIR": "jax"},
        settings_on_request={
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
    ),
}
