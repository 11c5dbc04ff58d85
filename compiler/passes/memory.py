"""Memory plan: where in one arena each temporary lives, by size and lifetime."""

from __future__ import annotations

from collections.abc import Mapping

ALIGN = 64


def plan_arena(
    nbytes: Mapping[int, int],
    life: Mapping[int, tuple[int, int]],
    shares: Mapping[int, int],
) -> tuple[dict[int, int], int]:
    """(offset of each slot, bytes of the arena).

    nbytes: size of each slot. life: first and last step that touches it. shares: slots that take
    over the memory of another one in the step in which that one dies.

    Largest first, each at the lowest offset that is free during its whole life: the greedy-by-size
    rule of Pisarchyk and Lee, "Efficient memory management for deep neural net inference" (2020).

    >>> plan_arena({0: 64, 1: 64, 2: 64}, {0: (0, 1), 1: (1, 2), 2: (2, 3)}, {})
    ({0: 0, 1: 64, 2: 0}, 128)
    """
    root = {slot: _root(slot, shares) for slot in nbytes}
    size: dict[int, int] = {}
    span: dict[int, tuple[int, int]] = {}
    for slot, base in root.items():
        first, last = span.get(base, life[slot])
        span[base] = (min(first, life[slot][0]), max(last, life[slot][1]))
        size[base] = max(size.get(base, 0), -(-nbytes[slot] // ALIGN) * ALIGN)
    placed: list[tuple[int, int, int]] = []  # (offset, end, base)
    offsets: dict[int, int] = {}
    for base in sorted(size, key=lambda b: (-size[b], span[b], b)):
        offset = _lowest(size[base], [p for p in placed if _overlaps(span[p[2]], span[base])])
        placed.append((offset, offset + size[base], base))
        offsets[base] = offset
    arena = max((end for _, end, _ in placed), default=0)
    return {slot: offsets[base] for slot, base in sorted(root.items())}, arena


def _root(slot: int, shares: Mapping[int, int]) -> int:
    while slot in shares:
        slot = shares[slot]
    return slot


def _overlaps(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def _lowest(size: int, busy: list[tuple[int, int, int]]) -> int:
    offset = 0
    for start, end, _ in sorted(busy):
        if offset + size <= start:
            break
        offset = max(offset, end)
    return offset
