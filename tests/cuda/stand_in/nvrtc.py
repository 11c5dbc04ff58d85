"""NVRTC: "machine code" is the text itself, compiled by g++ when a kernel is first started."""

from __future__ import annotations

import ctypes
import functools
import re
import zlib
from collections.abc import Sequence
from typing import Any

from tests.cuda import emulate
from tests.cuda.stand_in.machine import Fault, gpu

MAGIC = b"graphnn stand-in\0"
ARCHITECTURES = (75, 80, 86, 89, 90, 100)
VERSION = (99, 1)  # of the format; a part of the names in the disk cache
_ENTRY = re.compile(r'^extern "C" __global__ void __launch_bounds__\((\d+)\) (\w+)\(', re.MULTILINE)


class Entry:
    """A kernel. most: threads that a block may have. granted: bytes of dynamic shared memory."""

    def __init__(self, code: Code, name: str, most: int) -> None:
        self.code, self.name, self.most, self.granted = code, name, most, 48 << 10

    @functools.cached_property
    def host(self) -> Any:
        """The function for the host."""
        return self.code.functions[self.name]

    def sizes(self) -> list[int]:
        """Bytes of each parameter, negative for a pointer."""
        return self.host.sizes  # type: ignore[no-any-return]

    def run(self, blocks: int, threads: int, shared: int, values: Sequence[bytes]) -> None:
        """Run the kernel now, on parameters given as bytes."""
        kept = [ctypes.create_string_buffer(v, max(16, len(v))) for v in values]
        places = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(k) for k in kept))
        message = self.host(places, blocks, threads, shared, int(gpu.lazy))
        if message:
            raise Fault(f"{self.name}: {message.decode()}")
        for value, size in zip(values, self.sizes(), strict=True):
            block = gpu.find(int.from_bytes(value, "little")) if size < 0 else None
            if block is not None:
                block.check(self.name)


class Code:
    """A loaded text."""

    def __init__(self, text: str, architecture: str, wide: bool) -> None:
        self.text, self.architecture, self.wide = text, architecture, wide
        found = _ENTRY.findall(text)
        self.entries = {name: Entry(self, name, int(most)) for most, name in found}

    @functools.cached_property
    def functions(self) -> dict[str, Any]:
        return emulate.load(self.text, self.wide)

    @staticmethod
    def load(cubin: bytes) -> Code | None:
        """What `compile` made; None for the code of a real compiler."""
        if not cubin.startswith(MAGIC):
            return None
        options, text = zlib.decompress(cubin[len(MAGIC) :]).decode().split("\0", 1)
        given = options.split()
        (architecture,) = (o.split("=")[1] for o in given if o.startswith("--gpu-arch"))
        return Code(text, architecture, "-DGNN_WIDE" in given)


class Nvrtc:
    """The C functions of NVRTC that graphnn calls through ctypes."""

    def __init__(self) -> None:
        self.programs: list[tuple[str, bytes]] = [("", b"")]
        self.compiled: list[str] = []  # texts, as they are compiled

    @staticmethod
    def nvrtcVersion(major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = VERSION
        return 0

    @staticmethod
    def nvrtcGetNumSupportedArchs(count: Any) -> int:
        count._obj.value = len(ARCHITECTURES)
        return 0

    @staticmethod
    def nvrtcGetSupportedArchs(found: Any) -> int:
        found[:] = ARCHITECTURES
        return 0

    @staticmethod
    def nvrtcGetErrorString(code: int) -> bytes:
        return {0: b"NVRTC_SUCCESS", 5: b"NVRTC_ERROR_INVALID_OPTION"}.get(code, b"NVRTC_ERROR")

    def nvrtcCreateProgram(
        self, program: Any, source: bytes, name: bytes, headers: int, texts: Any, names: Any
    ) -> int:
        self.programs.append((source.decode(), b""))
        program._obj.value = len(self.programs) - 1
        return 0

    def nvrtcCompileProgram(self, program: Any, count: int, options: Any) -> int:
        text, _ = self.programs[program.value]
        given = " ".join(o.decode() for o in options[:count])
        self.programs[program.value] = (
            text,
            MAGIC + zlib.compress(f"{given}\0{text}".encode(), 1),
        )
        self.compiled.append(text)
        return 0

    def nvrtcGetCUBINSize(self, program: Any, size: Any) -> int:
        size._obj.value = len(self.programs[program.value][1])
        return 0

    def nvrtcGetCUBIN(self, program: Any, code: Any) -> int:
        code.raw = self.programs[program.value][1]
        return 0

    @staticmethod
    def nvrtcGetProgramLogSize(program: Any, size: Any) -> int:
        size._obj.value = 1
        return 0

    @staticmethod
    def nvrtcGetProgramLog(program: Any, text: Any) -> int:
        text.value = b""
        return 0

    def nvrtcDestroyProgram(self, program: Any) -> int:
        self.programs[program._obj.value] = ("", b"")
        return 0
