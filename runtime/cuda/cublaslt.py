"""Matrix products by cuBLASLt through `nvmath.bindings`; the fastest algorithm is found once.

cuBLASLt is column-major: a row-major product c = a @ b is its transpose c' = b' @ a', so the
operands change places: our columns are its rows, along which its bias lies. Of the algorithms that
the library proposes, each is timed at the first run and the best is kept, in memory and on disk
under the problem, the device and the library's version.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import gcd
from typing import Any

import numpy as np

from graphnn.runtime.cpu.objects import object_cache
from graphnn.runtime.device import DeviceFacts, Epilogue, ProductRun

ALIGN = 16  # bytes; algorithms with wide accesses want it
CANDIDATES = 8
TIMED_RUNS = 5
WORKSPACE_BYTES = 32 << 20
SUMS_IN_FLOAT32 = 2  # CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
MASK_BITS = 128  # what the rows of relu's bits are padded to a multiple of
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
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
Timer = Callable[[Callable[[], None], int], float]


@dataclass(frozen=True)
class Problem:
    """One kind of product, in cuBLASLt's column-major words.

    rows, cols, inner: of the result and of the sum. transposes: of the first and second operand.
    leading: elements between columns of the operands and the result. batch, stride: as in
    `ProductRun`, for the first operand, the second one and the result. dtype: of the operands,
    result: of the result. aligned: bytes that every matrix starts at a multiple of, at most 16.
    """

    dtype: str
    rows: int
    cols: int
    inner: int
    transposes: tuple[bool, bool]
    leading: tuple[int, int, int]
    batch: int = 1
    stride: tuple[int, int, int] = (0, 0, 0)
    aligned: int = ALIGN
    result: str = "float32"
    tf32: bool = False
    epilogue: Epilogue = field(default_factory=Epilogue)


def problem_of(run: ProductRun, aligned: int = ALIGN) -> Problem:
    """The column-major problem of a row-major product.

    >>> one = ProductRun(2, 3, 4, (False, False), (4, 3, 3))
    >>> problem_of(one).leading
    (3, 4, 3)
    """
    (transpose_a, transpose_b), (a, b, c) = run.transpose, run.stride
    return Problem(
        dtype=run.dtype,
        rows=run.n,
        cols=run.m,
        inner=run.k,
        transposes=(transpose_b, transpose_a),
        leading=(run.leading[1], run.leading[0], run.leading[2]),
        batch=run.batch,
        stride=(b, a, c) if run.batch > 1 else (0, 0, 0),
        aligned=aligned,
        result=run.result,
        tf32=run.tf32 and run.dtype == "float32",
        epilogue=run.epilogue,
    )


def epilogue_name(e: Epilogue) -> str:
    """What cuBLASLt calls an epilogue; a residual is its operand C, not a part of it.

    >>> epilogue_name(Epilogue(bias=True, activation="gelu", keeps=True))
    'GELU_AUX_BIAS'
    >>> epilogue_name(Epilogue(slope="relu", sums="c")), epilogue_name(Epilogue(sums="b"))
    ('DRELU_BGRAD', 'BGRADA')
    """
    if e.slope:
        return f"D{e.slope.upper()}" + ("_BGRAD" if e.sums else "")
    if e.sums:
        return {"a": "BGRADB", "b": "BGRADA"}[e.sums]  # operands change places
    words = [e.activation.upper()] if e.activation else []
    words += ["AUX"] * e.keeps + ["BIAS"] * e.bias
    return "_".join(words) or "DEFAULT"


class Products:
    """Descriptors and chosen algorithms of all products of a device.

    timer(work, times): milliseconds of one run. Nothing is loaded before the first product.
    """

    def __init__(self, facts: DeviceFacts, timer: Timer) -> None:
        self.facts, self.timer = facts, timer
        self._handle: int | None = None
        self._workspaces: dict[int, Any] = {}
        self._plans: dict[Problem, _Plan] = {}
        self._lock = threading.Lock()  # descriptors hold the pointers of the call under way

    def run(
        self, run: ProductRun, addresses: Sequence[int], stream: int, tune: bool, owner: int = 0
    ) -> None:
        """The product and what follows it, on a stream.

        addresses: in the order of `run.operands`. tune: whether algorithms may be timed, on the
        operands at hand. owner: stream on which the work will run in the end (of a capture: the one
        that replays); each has its own workspace.
        """
        if run.k == 0 and run.m and run.n:
            self._clear(run, addresses[2], stream)
        if 0 in (run.m, run.n, run.k, run.batch) or not run.offsets:
            return
        sizes = (SIZES[run.dtype], SIZES[run.dtype], SIZES[run.result])
        a, b, c, *rest = addresses
        places = [
            [p + o * size for p, o, size in zip((a, b, c), offset, sizes, strict=True)]
            for offset in run.offsets
        ]
        with self._lock:
            plan = self._plan(problem_of(run, _alignment(run, places, sizes)), rest)
            plan.workspace = self.workspace(owner)
            for left, right, out in places:
                plan.point(rest, out)
                if tune and not plan.tuned:
                    plan.tune(right, left, out, stream, self.timer)
                plan.multiply(right, left, out, stream)

    def supports(self, run: ProductRun) -> bool:
        """Whether the library has an algorithm for a product that lies at aligned addresses."""
        if 0 in (run.m, run.n, run.k, run.batch):
            return run.epilogue == Epilogue()
        with self._lock:
            try:
                self._plan(problem_of(run), [ALIGN] * 4)
            except (RuntimeError, self.library.cuBLASLtError):
                return False
        return True

    def _clear(self, run: ProductRun, address: int, stream: int) -> None:
        """Sums over nothing; compilers leave such products without anything that follows."""
        import cupy

        if run.epilogue != Epilogue():
            raise RuntimeError(f"a product over nothing has no epilogue: {run}")
        size = SIZES[run.result]
        for _, _, offset in run.offsets:
            for t in range(run.batch):
                for row in range(run.m):
                    place = offset + t * run.stride[2] + row * run.leading[2]
                    cupy.cuda.runtime.memsetAsync(address + place * size, 0, run.n * size, stream)

    def _plan(self, problem: Problem, rest: Sequence[int]) -> _Plan:
        if problem not in self._plans:
            self._plans[problem] = _Plan(self, problem, rest)
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

    def workspace(self, owner: int) -> int:
        """Address of the memory that algorithms may use on one stream."""
        if owner not in self._workspaces:
            import cupy

            self._workspaces[owner] = cupy.cuda.alloc(WORKSPACE_BYTES)
        return int(self._workspaces[owner].ptr)

    def digest(self, problem: Problem) -> str:
        """The name of a choice on disk."""
        version = self.library.get_version()
        words = (repr(problem), self.facts.name, self.facts.capability, version)
        return hashlib.sha256(repr(words).encode()).hexdigest()


def _alignment(
    run: ProductRun, places: Sequence[Sequence[int]], sizes: tuple[int, int, int]
) -> int:
    """Bytes of which all matrices' addresses are a multiple, at most 16."""
    moved = [s * size for s, size in zip(run.stride, sizes, strict=True)] if run.batch > 1 else []
    return reduce(gcd, (*(p for place in places for p in place), *moved), ALIGN)


class _Plan:
    """One problem with its descriptors and its algorithm."""

    def __init__(self, owner: Products, problem: Problem, rest: Sequence[int]) -> None:
        self.owner, self.problem = owner, problem
        self.workspace = 0
        lt, names = owner.library, owner.library.MatmulDescAttribute
        data, result, compute, scale = self._types()
        self.descriptor = lt.matmul_desc_create(compute, scale)
        first, second = problem.transposes
        self._describe(names.TRANSA, int(first))
        self._describe(names.TRANSB, int(second))
        word = epilogue_name(problem.epilogue)
        if word != "DEFAULT":
            self._describe(names.EPILOGUE, int(lt.Epilogue[word]))
        self.layouts = [self._layout(k, data if k < 2 else result) for k in range(3)]
        kind = np.float64 if problem.dtype == "float64" else np.float32
        self.one, self.zero = np.ones(1, kind), np.zeros(1, kind)
        self.tuned = False
        self.residual: int | None = None
        self.point(rest, 0)  # the library looks at pointers when it proposes algorithms
        self.algorithm = self._known()

    def _types(self) -> tuple[int, int, int, int]:
        """Types of the operands, of the result, of the sums, and of alpha and beta."""
        from nvmath import CudaDataType
        from nvmath.bindings.cublas import ComputeType

        names = {
            "float16": CudaDataType.CUDA_R_16F,
            "bfloat16": CudaDataType.CUDA_R_16BF,
            "float32": CudaDataType.CUDA_R_32F,
            "float64": CudaDataType.CUDA_R_64F,
        }
        data, result = names[self.problem.dtype], names[self.problem.result]
        if self.problem.dtype == "float64":
            return int(data), int(result), int(ComputeType.COMPUTE_64F), int(data)
        fast = self.problem.tf32
        compute = ComputeType.COMPUTE_32F_FAST_TF32 if fast else ComputeType.COMPUTE_32F
        return int(data), int(result), int(compute), int(CudaDataType.CUDA_R_32F)

    def _describe(self, attribute: Any, value: int) -> None:
        lt = self.owner.library
        word = np.array([value], lt.get_matmul_desc_attribute_dtype(attribute))
        address = word.ctypes.data
        lt.matmul_desc_set_attribute(self.descriptor, int(attribute), address, word.nbytes)

    def point(self, rest: Sequence[int], out: int) -> None:
        """Take the addresses of what the epilogue reads and writes."""
        e, names = self.problem.epilogue, self.owner.library.MatmulDescAttribute
        left = list(rest)
        if e.bias:
            self._describe(names.BIAS_POINTER, left.pop(0))
        self.residual = left.pop(0) if e.residual else out
        if e.slope or e.keeps:
            self._describe(names.EPILOGUE_AUX_POINTER, left.pop(0))
            rows = self.problem.rows
            if "relu" in (e.slope, e.activation):
                rows += -rows % MASK_BITS
            self._describe(names.EPILOGUE_AUX_LD, rows)
        if e.sums:
            self._describe(names.BIAS_POINTER, left.pop(0))

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
            raise RuntimeError(
                f"cuBLASLt has no algorithm for {self.problem}; graphnn.runtime.settings."
                "settings.epilogues = False leaves out what follows the product"
            )
        return (results[k : k + 1].copy() for k in good)

    def _prefer(self, preference: int) -> None:
        """What memory an algorithm may use and how operands lie; the library assumes 256 bytes."""
        lt, names = self.owner.library, self.owner.library.MatmulPreferenceAttribute
        wanted = {names.MAX_WORKSPACE_BYTES: WORKSPACE_BYTES}
        aligned = self.problem.aligned
        wanted |= {getattr(names, f"MIN_ALIGNMENT_{x}_BYTES"): aligned for x in "ABCD"}
        if SIZES[self.problem.result] == 2:  # parts of sums are not rounded to 16 bits
            wanted[names.REDUCTION_SCHEME_MASK] = SUMS_IN_FLOAT32
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
        beta = self.one if self.problem.epilogue.residual else self.zero
        lt.matmul(
            self.owner.handle,
            self.descriptor,
            self.one.ctypes.data,
            first,
            a,
            second,
            b,
            beta.ctypes.data,
            self.residual if self.problem.epilogue.residual else out,
            c,
            out,
            c,
            self.algorithm.ctypes.data,
            self.workspace,
            WORKSPACE_BYTES,
            stream,
        )
