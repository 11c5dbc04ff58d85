"""`nvmath.bindings.cublasLt` on host memory, as the library's documentation says: column-major
matrices with leading dimensions and strided batches, epilogues with their pointers, and refusals of
what the documentation does not allow."""

from __future__ import annotations

import ctypes
import enum
import types
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tests.cuda.stand_in import package
from tests.cuda.stand_in.machine import gpu

TYPES = {2: np.float16, 14: ml_dtypes.bfloat16, 0: np.float32, 1: np.float64}
DATA = {"CUDA_R_16F": 2, "CUDA_R_16BF": 14, "CUDA_R_32F": 0, "CUDA_R_64F": 1}
COMPUTE = {"COMPUTE_32F": 68, "COMPUTE_32F_FAST_TF32": 77, "COMPUTE_64F": 70}
INVALID, UNSUPPORTED = 7, 15
SMALL = (2, 14)  # 16-bit floats


class Desc(enum.IntEnum):
    TRANSA, TRANSB = 3, 4
    EPILOGUE, BIAS_POINTER = 7, 8
    EPILOGUE_AUX_POINTER, EPILOGUE_AUX_LD = 11, 12


class Layout(enum.IntEnum):
    BATCH_COUNT, STRIDED_BATCH_OFFSET = 5, 6


class Preference(enum.IntEnum):
    MAX_WORKSPACE_BYTES, REDUCTION_SCHEME_MASK = 1, 3
    MIN_ALIGNMENT_A_BYTES, MIN_ALIGNMENT_B_BYTES = 5, 6
    MIN_ALIGNMENT_C_BYTES, MIN_ALIGNMENT_D_BYTES = 7, 8


class Epilogue(enum.IntEnum):
    DEFAULT, RELU, BIAS, RELU_BIAS, GELU, GELU_BIAS = 1, 2, 4, 6, 32, 36
    RELU_AUX, RELU_AUX_BIAS, DRELU, DRELU_BGRAD = 130, 134, 136, 152
    GELU_AUX, GELU_AUX_BIAS, DGELU, DGELU_BGRAD = 160, 164, 192, 208
    BGRADA, BGRADB = 256, 512


class CuBLASLtError(Exception):
    """An error of the library, with its number."""

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        super().__init__(f"status {status}: {why}")


class Library:
    """The functions of the module. refuses(epilogue): as if no algorithm had it."""

    MatmulDescAttribute, MatrixLayoutAttribute = Desc, Layout
    MatmulPreferenceAttribute = Preference
    Epilogue = Epilogue
    cuBLASLtError = CuBLASLtError

    def __init__(self) -> None:
        self.objects: list[dict[Any, Any]] = [{}]
        self.preferences: list[dict[Any, int]] = []
        self.used: list[int] = []
        self.refuses: Callable[[Epilogue], bool] = lambda epilogue: False

    def _new(self, **parts: Any) -> int:
        self.objects.append(dict(parts))
        return len(self.objects) - 1

    def create(self) -> int:
        return 77

    def get_version(self) -> int:
        return 130000

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self._new(compute=compute, scale=scale)

    def matrix_layout_create(self, kind: int, rows: int, cols: int, ld: int) -> int:
        if kind not in TYPES or ld < rows:
            raise CuBLASLtError(INVALID, f"a layout of {rows} rows with a leading dimension {ld}")
        return self._new(kind=kind, rows=rows, cols=cols, ld=ld)

    def matmul_preference_create(self) -> int:
        return self._new()

    def matmul_preference_destroy(self, preference: int) -> None:
        self.preferences.append(self.objects[preference])
        self.objects[preference] = {}

    @staticmethod
    def get_matmul_desc_attribute_dtype(attribute: int) -> Any:
        long = (Desc.BIAS_POINTER, Desc.EPILOGUE_AUX_POINTER, Desc.EPILOGUE_AUX_LD)
        return np.int64 if attribute in long else np.int32

    @staticmethod
    def get_matrix_layout_attribute_dtype(attribute: int) -> Any:
        return np.int32 if attribute == Layout.BATCH_COUNT else np.int64

    @staticmethod
    def get_matmul_preference_attribute_dtype(attribute: int) -> Any:
        return np.uint64 if attribute == Preference.MAX_WORKSPACE_BYTES else np.uint32

    def _set(self, target: int, attribute: int, address: int, nbytes: int) -> None:
        data = ctypes.string_at(address, nbytes)
        self.objects[target][attribute] = int.from_bytes(data, "little")

    matmul_desc_set_attribute = matrix_layout_set_attribute = _set
    matmul_preference_set_attribute = _set

    def matmul_algo_get_heuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int, count: int,
        results: int, found: int,
    ) -> None:  # fmt: skip
        Call(self.objects, desc, (a, b, c, d)).check()
        count = 0 if self.refuses(self._epilogue(desc)) else count
        for k in range(count):
            ctypes.memset(results + 96 * k, 0, 96)
            ctypes.c_uint64.from_address(results + 96 * k).value = 100 + k
        ctypes.c_int32.from_address(found).value = count

    def _epilogue(self, desc: int) -> Epilogue:
        return Epilogue(self.objects[desc].get(Desc.EPILOGUE, 1))

    def matmul_algo_check(self, *arguments: int) -> None:
        """Every kept algorithm still fits."""

    def matmul(
        self, handle: int, desc: int, alpha: int, a: int, adesc: int, b: int, bdesc: int,
        beta: int, c: int, cdesc: int, d: int, ddesc: int, algo: int, workspace: int, nbytes: int,
        stream: int,
    ) -> None:  # fmt: skip
        if handle != 77:
            raise CuBLASLtError(INVALID, "no handle")
        self.used.append(ctypes.c_uint64.from_address(algo).value)
        call = Call(self.objects, desc, (adesc, bdesc, cdesc, ddesc))
        call.check()
        call.addresses = (a, b, c, d)
        wide = np.float64 if call.parts["scale"] == 1 else np.float32
        one, other = (
            np.frombuffer(gpu.host(p, np.dtype(wide).itemsize), wide) for p in (alpha, beta)
        )
        call.alpha, call.beta = float(one[0]), float(other[0])
        gpu.kernel("cublasLt.matmul", call.run, [*call.spans(), (workspace, nbytes)], stream)


class Call:
    """One product with all that the descriptors say at the time of the call."""

    addresses: tuple[int, int, int, int]
    alpha: float
    beta: float

    def __init__(self, objects: list[dict[Any, Any]], desc: int, layouts: tuple[int, ...]) -> None:
        self.parts = dict(objects[desc])
        self.layouts = [dict(objects[k]) for k in layouts]
        self.epilogue = Epilogue(self.parts.get(Desc.EPILOGUE, 1))
        self.words = self.epilogue.name.split("_")
        self.slope = self.words[0] if self.words[0] in ("DRELU", "DGELU") else ""
        self.rows, self.cols = self.layouts[3]["rows"], self.layouts[3]["cols"]
        self.kind = np.dtype(TYPES[self.layouts[3]["kind"]])

    @property
    def has_aux(self) -> bool:
        return bool(self.slope) or "AUX" in self.words

    def check(self) -> None:
        """Raise for what the documentation does not allow."""
        a, b, c, d = self.layouts
        first, second = bool(self.parts[Desc.TRANSA]), bool(self.parts[Desc.TRANSB])
        left = (a["cols"], a["rows"]) if first else (a["rows"], a["cols"])
        right = (b["cols"], b["rows"]) if second else (b["rows"], b["cols"])
        if left[1] != right[0] or (left[0], right[1]) != (d["rows"], d["cols"]):
            raise CuBLASLtError(INVALID, f"{left} times {right} is no {d['rows']} x {d['cols']}")
        if len({x.get(Layout.BATCH_COUNT, 1) for x in self.layouts}) > 1:
            raise CuBLASLtError(INVALID, "batches of different counts")
        kinds = (a["kind"], b["kind"], c["kind"], d["kind"])
        mixed = kinds[0] in SMALL and kinds[2:] == (0, 0)
        if kinds[0] != kinds[1] or kinds[2] != kinds[3] or (kinds[0] != kinds[2] and not mixed):
            raise CuBLASLtError(UNSUPPORTED, f"types {kinds}")
        if (self.parts["compute"] == 70) != (kinds[0] == 1):
            raise CuBLASLtError(UNSUPPORTED, "float64 has its own compute type")
        if self.epilogue != Epilogue.DEFAULT:
            self._check_epilogue(first, second, left[1], mixed)

    def _check_epilogue(self, first: bool, second: bool, inner: int, mixed: bool) -> None:
        plain = self.layouts[3].get(Layout.BATCH_COUNT, 1) == 1 and self.kind != np.float64
        if not plain or (mixed and self.epilogue != Epilogue.BIAS):
            raise CuBLASLtError(UNSUPPORTED, f"{self.epilogue.name} here")
        if (self.epilogue == Epilogue.BGRADA and first) or (
            self.epilogue == Epilogue.BGRADB and not second
        ):
            raise CuBLASLtError(UNSUPPORTED, "sums along the contiguous axis of an operand")
        if self.slope and inner == 1:
            raise CuBLASLtError(UNSUPPORTED, "a slope of a product over one element")
        needs_vector = {"BIAS", "BGRAD", "BGRADA", "BGRADB"} & set(self.words)
        if needs_vector and not self.parts.get(Desc.BIAS_POINTER):
            raise CuBLASLtError(INVALID, "no vector")
        if not self.has_aux:
            return
        by, ld = (
            (128 if "RELU" in self.epilogue.name else 8),
            self.parts.get(Desc.EPILOGUE_AUX_LD, 0),
        )
        if not self.parts.get(Desc.EPILOGUE_AUX_POINTER) or ld % by or ld < self.rows:
            raise CuBLASLtError(INVALID, f"rows of {ld} kept elements")

    # ---- memory ------------------------------------------------------------------------------

    def spans(self) -> list[tuple[int, int]]:
        """All memory that is touched."""
        found = [span(p, o) for p, o in zip(self.addresses, self.layouts, strict=True)]
        if self.beta == 0:
            found.pop(2)
        if Desc.BIAS_POINTER in self.parts:
            found.append((self.parts[Desc.BIAS_POINTER], self._length() * self.kind.itemsize))
        if self.has_aux:
            found.append((self.parts[Desc.EPILOGUE_AUX_POINTER], self._aux_bytes()))
        return found

    def _length(self) -> int:
        return int(self.cols if self.epilogue == Epilogue.BGRADB else self.rows)

    def _aux_bytes(self) -> int:
        ld = self.parts[Desc.EPILOGUE_AUX_LD]
        unit = ld // 8 if "RELU" in self.epilogue.name else ld * self.kind.itemsize
        return int(unit * self.cols)

    def _vector(self) -> Any:
        nbytes = self._length() * self.kind.itemsize
        return gpu.memory(self.parts[Desc.BIAS_POINTER], nbytes).view(self.kind)

    def _aux(self) -> Any:
        """Bits as bytes (bytes of a column, columns), or values (rows, columns)."""
        memory = gpu.memory(self.parts[Desc.EPILOGUE_AUX_POINTER], self._aux_bytes())
        if "RELU" not in self.epilogue.name:
            memory = memory.view(self.kind)
        return memory.reshape(self.cols, -1).T

    # ---- arithmetic --------------------------------------------------------------------------

    def run(self) -> None:
        """The product and its epilogue."""
        with np.errstate(all="ignore"):
            for t in range(self.layouts[3].get(Layout.BATCH_COUNT, 1)):
                self._one(t)

    def _one(self, t: int) -> None:
        a, b, d = (matrix(self.addresses[k], self.layouts[k], t) for k in (0, 1, 3))
        wide = np.float64 if self.parts["compute"] == COMPUTE["COMPUTE_64F"] else np.float32
        x = (a.T if self.parts[Desc.TRANSA] else a).astype(wide)
        y = (b.T if self.parts[Desc.TRANSB] else b).astype(wide)
        total = self.alpha * (x @ y)
        if self.beta:
            total += self.beta * matrix(self.addresses[2], self.layouts[2], t).astype(wide)
        if "BIAS" in self.words:
            total += self._vector().astype(wide)[:, None]
        if "AUX" in self.words:
            self._keep(total)
        if self.slope:
            total *= self._slope()
        elif self.words[0] == "RELU":
            total = np.where(total > 0, total, 0)  # a NaN becomes 0, as users of the library report
        elif self.words[0] == "GELU":
            total = 0.5 * total * (1 + np.tanh(_inner(total)))
        if "BGRAD" in self.words:
            self._vector()[...] = total.sum(1).astype(self.kind)
        elif self.epilogue in (Epilogue.BGRADA, Epilogue.BGRADB):
            sums = x.sum(1) if self.epilogue == Epilogue.BGRADA else y.sum(0)
            self._vector()[...] = sums.astype(self.kind)
        d[...] = total.astype(self.kind)

    def _keep(self, total: Any) -> None:
        if self.words[0] == "GELU":
            self._aux()[: self.rows] = total.astype(self.kind)
            return
        bits = np.packbits(total > 0, axis=0, bitorder="little")
        self._aux()[: bits.shape[0]] = bits

    def _slope(self) -> Any:
        kept = self._aux()
        if self.slope == "DRELU":
            return np.unpackbits(kept, axis=0, bitorder="little")[: self.rows]
        x = kept[: self.rows].astype(np.float64)
        t = np.tanh(_inner(x))
        inner = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x * x)
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner


def _inner(x: Any) -> Any:
    return np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def span(address: int, layout: dict[Any, Any]) -> tuple[int, int]:
    """The bytes of all matrices of a batch."""
    count, step = layout.get(Layout.BATCH_COUNT, 1), layout.get(Layout.STRIDED_BATCH_OFFSET, 0)
    size = layout["ld"] * (layout["cols"] - 1) + layout["rows"] + (count - 1) * step
    return address, int(size * np.dtype(TYPES[layout["kind"]]).itemsize)


def matrix(address: int, layout: dict[Any, Any], t: int) -> Any:
    """A column-major matrix in memory."""
    dtype = np.dtype(TYPES[layout["kind"]])
    start = address + t * layout.get(Layout.STRIDED_BATCH_OFFSET, 0) * dtype.itemsize
    size = layout["ld"] * (layout["cols"] - 1) + layout["rows"]
    memory = gpu.memory(start, size * dtype.itemsize).view(dtype)
    strides = (dtype.itemsize, layout["ld"] * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(memory, (layout["rows"], layout["cols"]), strides)


def modules() -> dict[str, Any]:
    """`nvmath` with what products use."""
    library = Library()
    public = {n: getattr(library, n) for n in dir(library) if not n.startswith("_")}
    lt = package("nvmath.bindings.cublasLt", **public, library=library)
    cublas = package("nvmath.bindings.cublas", ComputeType=types.SimpleNamespace(**COMPUTE))
    bindings = package("nvmath.bindings", cublasLt=lt, cublas=cublas)
    top = package("nvmath", bindings=bindings, CudaDataType=types.SimpleNamespace(**DATA))
    return {m.__name__: m for m in (top, bindings, cublas, lt)}
