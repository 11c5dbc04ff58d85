"""The CPU: machine code from LLVM IR text, the thread pool, matrix products."""

from graphnn.runtime.cpu.blas import COL_MAJOR as COL_MAJOR
from graphnn.runtime.cpu.blas import NO_TRANS as NO_TRANS
from graphnn.runtime.cpu.blas import ROW_MAJOR as ROW_MAJOR
from graphnn.runtime.cpu.blas import TRANS as TRANS
from graphnn.runtime.cpu.blas import describe as describe_blas
from graphnn.runtime.cpu.blas import gemm_address as gemm_address
from graphnn.runtime.cpu.blas import gemv_address as gemv_address
from graphnn.runtime.cpu.jit import CompileError as CompileError
from graphnn.runtime.cpu.jit import Library as Library
from graphnn.runtime.cpu.jit import assembly as assembly
from graphnn.runtime.cpu.jit import cache_status as cache_status
from graphnn.runtime.cpu.jit import compile_library as compile_library
from graphnn.runtime.cpu.jit import optimized_ir as optimized_ir
from graphnn.runtime.cpu.pool import num_threads as num_threads
from graphnn.runtime.cpu.pool import parallel_address as parallel_address
from graphnn.runtime.cpu.pool import pool_status as pool_status
from graphnn.runtime.cpu.pool import set_num_threads as set_num_threads
from graphnn.runtime.cpu.target import HostCPU as HostCPU
from graphnn.runtime.cpu.target import available_cores as available_cores
from graphnn.runtime.cpu.target import host_cpu as host_cpu

__all__ = [
    "COL_MAJOR",
    "NO_TRANS",
    "ROW_MAJOR",
    "TRANS",
    "CompileError",
    "HostCPU",
    "Library",
    "assembly",
    "available_cores",
    "cache_status",
    "compile_library",
    "describe_blas",
    "gemm_address",
    "gemv_address",
    "host_cpu",
    "num_threads",
    "optimized_ir",
    "parallel_address",
    "pool_status",
    "set_num_threads",
]
