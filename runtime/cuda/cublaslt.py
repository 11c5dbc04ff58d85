"""Matrix products by cuBLASLt through `nvmath.bindings`; the fastest algorithm is found once.

cuBLASLt is column-major: a row-major product c = a @ b is its transpose c' = b' @ a', so the
operands change places. Of the algorithms that the library proposes, each is timed at the first run
and the best is kept, in memory and on disk under the problem, the device and the library's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn.runtime.cpu.objects import object_cache
from graphnn.runtime.device import DeviceFacts, ProductRun

ALIGN = 16  # bytes; algorithms with wide accesses want it
CANDIDATES = 8
TIMED_RUNS = 5
WORKSPACE_BYTES = 32 << 20
# cublasLtMatmulHeuristicResult_t
RESULT = np.dtype(
    [
        ("algo", "<u8", (8,)),
        ("workspace", "<u8"),
        ("state", "<i4"),
        ("waves", "<f4"),
        ("reserved", "<i4", (4,)),
    ]
)
SIZES = {"float16": "f2", "bfloat16": "f2", "float32": "f4", "float64": "f8"}
Timer = Callable[[Callable[[], None], int], float]


@dataclass(frozen=True)
class Problem:
    """One kind of product, in cuBLASLt's column-major words.

    rows, cols, inner: of the result and of the sum. transposes: of the first and second operand.
    leading: elements between columns of the operands and the result. batch, stride: as in
    `ProductRun`, for the first operand, the second one and the result. aligned: whether every
    matrix starts at a multiple of 16 bytes.
    """

    dtype: str
    rows: int
    cols: int
    inner: int
    transposes: tuple[bool, bool]
    leading: tuple[int, int, int]
    batch: int = 1
    stride: tuple[int, int, int] = (0, 0, 0)
    aligned: bool = True


def problem_of(run: ProductRun, dtype: str, aligned: bool = True) -> Problem:
    """The column-major problem of a row-major product.

    >>> one = ProductRun(2, 3, 4, (False, False), ((0, 0, 0),))
    >>> problem_of(one, "float32").leading
    (3, 4, 3)
    """
    transpose_a, transpose_b = run.transpose
    leading = (run.k if transpose_b else run.n, run.m if transpose_a else run.k, run.n)
    batched = run.stride is not None and len(run.offsets) > 1
    a, b, c = run.stride if batched and run.stride else (0, 0, 0)
    return Problem(
        dtype=dtype,
        rows=run.n,
        cols=run.m,
        inner=run.k,
        transposes=(transpose_b, transpose_a),
        leading=leading,
        batch=len(run.offsets) if batched else 1,
        stride=(b, a, c),
        aligned=aligned,
    )


class Products:
    """Descriptors and chosen algorithms of all products of a device.

    timer(work, times): milliseconds of one run. Nothing is loaded before the first product.
    """

    def __init__(self, facts: DeviceFacts, tf32: bool, timer: Timer) -> None:
        self.facts, self.tf32, self.timer = facts, tf32, timer
        self._handle: int | None = None
        self._workspace: Any = None
        self._plans: dict[Problem, _Plan] = {}

    def run(
        self,
        run: ProductRun,
        dtype: np.dtype[Any],
        addresses: Sequence[int],
        stream: int,
        tune: bool,
    ) -> None:
        """c = a @ b on a stream, for sizes that are not 0.

        addresses: of a, b and c. tune: whether algorithms may be timed, on the operands at hand.
        """
        size = dtype.itemsize
        places = [
            [p + o * size for p, o in zip(addresses, offset, strict=True)] for offset in run.offsets
        ]
        aligned = all(p % ALIGN == 0 for place in places for p in place)
        plan = self._plan(problem_of(run, dtype.name, aligned))
        for a, b, c in places[:1] if plan.problem.batch > 1 else places:
            if tune and not plan.tuned:
                plan.tune(b, a, c, stream, self.timer)
            plan.multiply(b, a, c, stream)

    def _plan(self, problem: Problem) -> _Plan:
        if problem not in self._plans:
            self._plans[problem] = _Plan(self, problem)
        return self._plans[problem]

    @property
    def library(self) -> Any:
        """The bindings."""
        from nvmath.bindings import cublasLt

        return cublasLt

    @property
    def handle(self) -> int:
        """The library's handle, made at first use."""
        if self._handle is None:
            self._handle = int(self.library.create())
        return self._handle

    @property
    def workspace(self) -> int:
        """Address of the memory that algorithms may use; products run one after the other."""
        if self._workspace is None:
            import cupy

            self._workspace = cupy.cuda.alloc(WORKSPACE_BYTES)
        return int(self._workspace.ptr)

    def digest(self, problem: Problem) -> str:
        """The name of a choice on disk."""
        version = self.library.get_version()
        words = (repr(problem), self.facts.name, self.facts.capability, version, self.tf32)
        return hashlib.sha256(repr(words).encode()).hexdigest()


class _Plan:
    """One problem with its descriptors and its algorithm."""

    def __init__(self, owner: Products, problem: Problem) -> None:
        self.owner, self.problem = owner, problem
        lt = owner.library
        data, compute, scale = self._types()
        self.descriptor = lt.matmul_desc_create(compute, scale)
        first, second = problem.transposes
        self._describe(lt.MatmulDescAttribute.TRANSA, int(first))
        self._describe(lt.MatmulDescAttribute.TRANSB, int(second))
        self.layouts = [self._layout(k, data) for k in range(3)]
        kind = np.float64 if problem.dtype == "float64" else np.float32
        self.one, self.zero = np.ones(1, kind), np.zeros(1, kind)
        self.tuned = False
        self.algorithm = self._known()

    def _types(self) -> tuple[int, int, int]:
        """Types of the elements, of the sums and of alpha and beta."""
        from nvmath import CudaDataType
        from nvmath.bindings.cublas import ComputeType

        names = {
            "float16": CudaDataType.CUDA_R_16F,
            "bfloat16": CudaDataType.CUDA_R_16BF,
            "float32": CudaDataType.CUDA_R_32F,
            "float64": CudaDataType.CUDA_R_64F,
        }
        data = names[self.problem.dtype]
        if self.problem.dtype == "float64":
            return int(data), int(ComputeType.COMPUTE_64F), int(data)
        fast = self.owner.tf32 and self.problem.dtype == "float32"
        compute = ComputeType.COMPUTE_32F_FAST_TF32 if fast else ComputeType.COMPUTE_32F
        return int(data), int(compute), int(CudaDataType.CUDA_R_32F)

    def _describe(self, attribute: Any, value: int) -> None:
        lt = self.owner.library
        word = np.array([value], lt.get_matmul_desc_attribute_dtype(attribute))
        address = word.ctypes.data
        lt.matmul_desc_set_attribute(self.descriptor, int(attribute), address, word.nbytes)

    def _layout(self, which: int, data: int) -> int:
        """The layout of the first operand, the second one or the result, as stored."""
        lt, p = self.owner.library, self.problem
        shapes = ((p.rows, p.inner), (p.inner, p.cols), (p.rows, p.cols))
        rows, cols = shapes[which]
        if which < 2 and p.transposes[which]:
            rows, cols = cols, rows
        layout = lt.matrix_layout_create(data, rows, cols, p.leading[which])
        if p.batch > 1:
            names = lt.MatrixLayoutAttribute
            pairs = ((names.BATCH_COUNT, p.batch), (names.STRIDED_BATCH_OFFSET, p.stride[which]))
            for attribute, value in pairs:
                word = np.array([value], lt.get_matrix_layout_attribute_dtype(attribute))
                address = word.ctypes.data
                lt.matrix_layout_set_attribute(layout, int(attribute), address, word.nbytes)
        return int(layout)

    # ---- the algorithm -----------------------------------------------------------------------

    def _known(self) -> np.ndarray[Any, Any]:
        """The choice kept on disk, else the library's first proposal."""
        kept = object_cache.load(self.owner.digest(self.problem))
        if kept is not None and len(kept) == RESULT.itemsize:
            result = np.frombuffer(kept, RESULT).copy()
            if self._fits(result):
                self.tuned = True
                return result
        return next(self._proposals(1))

    def _fits(self, result: np.ndarray[Any, Any]) -> bool:
        """Whether the library still takes a kept algorithm."""
        lt, (a, b, c) = self.owner.library, self.layouts
        checked = np.zeros(1, RESULT)
        where = (result.ctypes.data, checked.ctypes.data)
        try:
            lt.matmul_algo_check(self.owner.handle, self.descriptor, a, b, c, c, *where)
        except lt.cuBLASLtError:
            return False
        return int(checked["workspace"][0]) <= WORKSPACE_BYTES

    def _proposals(self, count: int) -> Iterator[np.ndarray[Any, Any]]:
        lt, (a, b, c) = self.owner.library, self.layouts
        preference = lt.matmul_preference_create()
        try:
            self._prefer(preference)
            results, found = np.zeros(count, RESULT), np.zeros(1, np.int32)
            where = (results.ctypes.data, found.ctypes.data)
            lt.matmul_algo_get_heuristic(
                self.owner.handle, self.descriptor, a, b, c, c, preference, count, *where
            )
        finally:
            lt.matmul_preference_destroy(preference)
        good = [k for k in range(int(found[0])) if results["state"][k] == 0]
        if not good:
            raise RuntimeError(f"cuBLASLt has no algorithm for {self.problem}")
        return (results[k : k + 1].copy() for k in good)

    def _prefer(self, preference: int) -> None:
        """What memory an algorithm may use and how operands lie; the library assumes 256 bytes."""
        lt, names = self.owner.library, self.owner.library.MatmulPreferenceAttribute
        bytes_ = ALIGN if self.problem.aligned else np.dtype(SIZES[self.problem.dtype]).itemsize
        wanted = {names.MAX_WORKSPACE_BYTES: WORKSPACE_BYTES}
        wanted |= {getattr(names, f"MIN_ALIGNMENT_{x}_BYTES"): bytes_ for x in "ABCD"}
        for attribute, value in wanted.items():
            word = np.array([value], lt.get_matmul_preference_attribute_dtype(attribute))
            address = word.ctypes.data
            lt.matmul_preference_set_attribute(preference, int(attribute), address, word.nbytes)

    def tune(self, first: int, second: int, out: int, stream: int, timer: Timer) -> None:
        """Time the proposals on the operands at hand and keep the fastest one."""
        self.tuned = True
        best, least = self.algorithm, float("inf")
        for candidate in self._proposals(CANDIDATES):
            self.algorithm = candidate
            took = timer(lambda: self.multiply(first, second, out, stream), TIMED_RUNS)
            if took < least:
                best, least = candidate, took
        self.algorithm = best
        object_cache.store(self.owner.digest(self.problem), best.tobytes())

    def multiply(self, first: int, second: int, out: int, stream: int) -> None:
        """Start the product."""
        lt, (a, b, c) = self.owner.library, self.layouts
        lt.matmul(
            self.owner.handle,
            self.descriptor,
            self.one.ctypes.data,
            first,
            a,
            second,
            b,
            self.zero.ctypes.data,
            out,
            c,
            out,
            c,
            self.algorithm.ctypes.data,
            self.owner.workspace,
            WORKSPACE_BYTES,
            stream,
        )
