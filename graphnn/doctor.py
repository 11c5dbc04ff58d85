"""`python -m graphnn.doctor`: what is installed, what is used of this machine, what is missing."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from graphnn.runtime.cpu import blas, jit, pool, target

__all__ = ["main", "report"]

# Module, distributions that may bring it, what it is for, how to get it.
Package = tuple[str, tuple[str, ...], str, str]
NEEDED: tuple[Package, ...] = (
    ("numpy", ("numpy",), "arrays", "numpy"),
    ("llvmlite", ("llvmlite",), "compiled functions", "llvmlite"),
    ("networkx", ("networkx",), "fusion and recomputation", "networkx"),
    ("ml_dtypes", ("ml_dtypes",), "bfloat16", "ml_dtypes"),
    ("safetensors", ("safetensors",), "saved weights", "safetensors"),
    ("tqdm", ("tqdm",), "progress bars", "tqdm"),
    ("scipy_openblas32", ("scipy-openblas32",), "fast matrix products", "scipy-openblas32"),
)
OPTIONAL: tuple[Package, ...] = (
    ("cupy", ("cupy-cuda13x", "cupy-cuda12x", "cupy"), "NVIDIA GPUs", "graphnn[cuda13]"),
    ("nvmath", ("nvmath-python",), "matrix products on GPUs", "graphnn[cuda13]"),
    ("cudnn", ("nvidia-cudnn-frontend",), "attention on GPUs", "graphnn[cuda13]"),
    ("pyarrow", ("pyarrow",), "Parquet and Arrow files", "graphnn[data]"),
    ("PIL", ("pillow",), "images", "graphnn[data]"),
    ("fsspec", ("fsspec",), "remote files", "graphnn[data]"),
    ("tensorboard", ("tensorboard",), "looking at event files", "graphnn[tensorboard]"),
    ("h5py", ("h5py",), "HDF5 files", "graphnn[hdf5]"),
    ("onnx", ("onnx",), "ONNX models", "graphnn[onnx]"),
    ("mpi4py", ("mpi4py",), "training across machines", "graphnn[mpi]"),
)
# The features that decide how wide and how fast generated loops are, by LLVM's names.
TELLING_FEATURES = (
    "sse4.2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bf16",
    "avx512fp16",
    "amx-bf16",
    "neon",
    "fullfp16",
    "bf16",
    "sve",
    "sme",
    "v",
)


def report() -> str:
    """What is installed, used and missing, as text of one fact a line.

    Whatever cannot be found out is said so, with the reason; nothing is raised.

    >>> from graphnn import doctor
    >>> print(doctor.report())
    graphnn ...
    Python ...
    CPU ...
    """
    facts: list[tuple[str, Callable[[], str]]] = [
        ("graphnn", _graphnn),
        ("Python", _python),
        ("platform", platform.platform),
        ("CPU", _cpu),
        ("threads", _threads),
        ("LLVM", _llvm),
        ("BLAS", lambda: str(blas.describe())),
        ("object cache", _cache),
        ("GPU", _gpu),
    ]
    lines = [_line(name, _tell(fact)) for name, fact in facts]
    lines += ["", "needed packages", *map(_package, NEEDED)]
    lines += ["", "optional packages", *map(_package, OPTIONAL)]
    return "\n".join(lines)


def main() -> int:
    """Print the report; returns the exit status, 0."""
    print(report())
    return 0


def _line(name: str, text: str) -> str:
    return f"{name:<19} {text}"


def _tell(fact: Callable[[], str]) -> str:
    try:
        return fact()
    except Exception as error:  # a doctor reports every illness and dies of none
        reason = str(error).strip().split("\n")[0]
        return f"cannot tell: {type(error).__name__}: {reason}"


def _graphnn() -> str:
    place = Path(__file__).resolve().parent
    return f"{_version(('graphnn',)) or 'not installed, a source checkout'} at {place}"


def _python() -> str:
    return f"{platform.python_version()} ({platform.python_implementation()}) at {sys.executable}"


def _cpu() -> str:
    host = target.host_cpu()
    enabled = {name[1:] for name in host.features.split(",") if name.startswith("+")}
    used = [name for name in TELLING_FEATURES if name in enabled]
    return f"{host.name}, {host.vector_bits}-bit vectors: {', '.join(used) or 'no known features'}"


def _threads() -> str:
    used, allowed, present = pool.num_threads(), target.available_cores(), os.cpu_count()
    return f"{used} used, {allowed} cores allowed to this process, {present} in the machine"


def _llvm() -> str:
    host = target.host_cpu()
    return f"{'.'.join(map(str, host.llvm_version))} (llvmlite {host.llvmlite_version})"


def _cache() -> str:
    """State of the folder of compiled code: usable or why not, and how full."""
    status = jit.cache_status()
    if not status["disk"]:
        return f"{status['directory']}, not in use: {status['problem'] or 'turned off'}"
    used, limit = (int(str(status[key])) / 2**20 for key in ("bytes", "limit"))
    return f"{status['directory']}, {status['files']} files, {used:.1f} of {limit:.0f} MiB"


def _version(distributions: tuple[str, ...]) -> str:
    """Version of the first of these distributions that is installed, or the empty string."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _package(package: Package) -> str:
    module, distributions, purpose, install = package
    if find_spec(module) is None:
        return _line(f"  {module}", f"missing; for {purpose}: pip install '{install}'")
    return _line(f"  {module}", f"{_version(distributions) or 'present'}, for {purpose}")


def _gpu() -> str:
    """One sentence, from the driver itself: no GPU package is needed to look."""
    names, version = _driver()
    if not names:
        return "no NVIDIA driver with a GPU answers, so graphnn runs on the CPU"
    found = f"{', '.join(names)} (driver for CUDA {version // 1000}.{version % 1000 // 10})"
    if find_spec("cupy") is None:
        extra = "cuda13" if version >= 13000 else "cuda12"
        return f"{found}, but CuPy is missing: pip install 'graphnn[{extra}]'"
    return f"{found} with CuPy {_version(OPTIONAL[0][1]) or 'of unknown version'}"


def _driver() -> tuple[list[str], int]:
    """Names of the CUDA devices and the CUDA version of the driver; ([], 0) without one."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return [], 0
    count, version = ctypes.c_int(), ctypes.c_int()
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return [], 0
    library.cuDriverGetVersion(ctypes.byref(version))
    names = []
    for index in range(count.value):
        device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
        if library.cuDeviceGet(ctypes.byref(device), index) == 0:
            library.cuDeviceGetName(text, len(text), device)
            names.append(text.value.decode(errors="replace"))
    return names, version.value


if __name__ == "__main__":
    sys.exit(main())
