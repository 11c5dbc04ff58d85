"""What compiled kernels ask of a GPU, read from their machine code: no GPU, no driver.

NVRTC's machine code is an ELF file. A section `.nv.info` says how many registers a thread has and
how many bytes it spills to local memory; the size of `.nv.shared.NAME` is a block's own shared
memory. From these follows how many blocks fit a multiprocessor at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_INFO, _SHARED = ".nv.info", ".nv.shared."
_REGISTERS, _FRAME = 0x2F, 0x11  # attributes of `.nv.info`: (symbol, number)
_SIZED = 4  # format of an attribute that says how long it is
_WARP = 32
_REGISTER_UNIT = 256  # registers are handed to warps in such units
_FILE = 65536  # registers of a multiprocessor
_RESERVED = 1 << 10  # bytes of shared memory that the system takes from each block
# Threads, blocks and bytes of shared memory of a multiprocessor (CUDA C Programming Guide,
# "Technical Specifications per Compute Capability").
_LIMITS = {
    (7, 5): (1024, 16, 64 << 10),
    (8, 0): (2048, 32, 164 << 10),
    (8, 6): (1536, 16, 100 << 10),
    (8, 7): (1536, 16, 164 << 10),
    (8, 9): (1536, 24, 100 << 10),
    (9, 0): (2048, 32, 228 << 10),
    (10, 0): (2048, 32, 228 << 10),
    (12, 0): (1536, 24, 100 << 10),
}


@dataclass(frozen=True)
class Resources:
    """What one kernel asks for.

    registers: of a thread. local: bytes of a thread in local memory, which is slow: values that
    found no register. shared: bytes of a block that the text names, without what a launch adds.
    """

    name: str
    registers: int
    local: int
    shared: int


def resources(cubin: bytes) -> dict[str, Resources]:
    """The kernels of a piece of machine code by name. Raises ValueError if it is none."""
    if cubin[:4] != b"\x7fELF":
        raise ValueError(f"machine code begins with 7f 45 4c 46, got {cubin[:4].hex(' ')}")
    sections = list(_sections(cubin))
    symbols = _symbols(cubin, sections)
    numbers: dict[tuple[int, str], int] = {}
    for section in sections:
        if section.name == _INFO:
            for kind, symbol, number in _attributes(cubin, section):
                numbers[kind, symbols[symbol]] = number
    shared = {s.name.removeprefix(_SHARED): s.size for s in sections if s.name.startswith(_SHARED)}
    names = [n for kind, n in numbers if kind == _REGISTERS]
    return {
        n: Resources(n, numbers[_REGISTERS, n], numbers.get((_FRAME, n), 0), shared.get(n, 0))
        for n in names
    }


def blocks_at_a_time(
    found: Resources, threads: int, dynamic: int = 0, capability: tuple[int, int] = (9, 0)
) -> int:
    """How many blocks of a kernel one multiprocessor runs side by side; 0 if none fits.

    threads: of a block. dynamic: bytes of shared memory that the launch asks for.

    >>> blocks_at_a_time(Resources("k", registers=32, local=0, shared=0), threads=512)
    4
    >>> blocks_at_a_time(Resources("k", registers=40, local=0, shared=1280), 512, 100_544)
    2
    """
    most_threads, most_blocks, memory = _limits(capability)
    warps = -(-threads // _WARP)
    own = -(-found.registers * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = _FILE // max(1, own * warps)
    reserved = 0 if found.shared >= _RESERVED else _RESERVED  # CUDA 13 counts it already
    by_shared = memory // max(1, found.shared + dynamic + reserved)
    return min(most_blocks, most_threads // (warps * _WARP), by_registers, by_shared)


def _limits(capability: tuple[int, int]) -> tuple[int, int, int]:
    """Those of the newest generation known that is not newer."""
    known = [c for c in _LIMITS if c <= capability]
    return _LIMITS[max(known)] if known else _LIMITS[min(_LIMITS)]


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    start: int
    size: int
    link: int


def _sections(elf: bytes) -> Iterator[_Section]:
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    step, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    raw = [struct.unpack_from("<IIQQQQIIQQ", elf, start + k * step) for k in range(count)]
    table = raw[names][4]
    for name, kind, _, _, offset, size, link, *_ in raw:
        yield _Section(_string(elf, table + name), kind, offset, size, link)


def _string(elf: bytes, at: int) -> str:
    return elf[at : elf.index(b"\0", at)].decode()


def _symbols(elf: bytes, sections: list[_Section]) -> list[str]:
    table = next(s for s in sections if s.name == ".symtab")
    names = sections[table.link].start
    starts = range(table.start, table.start + table.size, 24)
    return [_string(elf, names + struct.unpack_from("<I", elf, at)[0]) for at in starts]


def _attributes(elf: bytes, section: _Section) -> Iterator[tuple[int, int, int]]:
    at, end = section.start, section.start + section.size
    while at < end:
        form, kind, size = struct.unpack_from("<BBH", elf, at)
        at += 4
        if form != _SIZED:  # two bytes of its own, or none
            continue
        if size == 8:
            symbol, number = struct.unpack_from("<II", elf, at)
            yield kind, symbol, number
        at += size
