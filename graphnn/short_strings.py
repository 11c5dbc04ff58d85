"""Short strings as numbers: whole arrays of them are looked up and hashed without Python objects.

NumPy keeps a string of up to 15 bytes in the 16 bytes of its array element (NEP 55): the text in
UTF-8, zeros, and a last byte with a mark and the length. These are read as two integers. Since the
layout is no promise, it is checked once, with strings of all kinds; where it is another one there
are no short strings, and callers take the way through Python.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any, NamedTuple

import numpy as np

from graphnn.strings import string

Array = np.ndarray[Any, Any]

_SIZE = 16
_SHORT = np.uint64(6)  # the mark of a short string; longer ones have 4, 5 or 7, a fresh element 0
_MARK, _LENGTH, _NIBBLE = np.uint64(60), np.uint64(56), np.uint64(15)
_EMPTY = _SHORT << _MARK


class Words(NamedTuple):
    """The strings of an array, row-major. low, high: their memory as uint64. short: which of them
    these numbers tell, as a mask."""

    low: Array
    high: Array
    short: Array

    @property
    def lengths(self) -> Array:
        """Bytes of each string; of no meaning for long ones."""
        return ((self.high >> _LENGTH) & _NIBBLE).astype(np.int64)

    @property
    def rows(self) -> Array:
        """The memory of each string as 16 bytes, uint8."""
        return np.stack((self.low, self.high), axis=1).view(np.uint8)


def words_of(array: Array) -> Words | None:
    """The words of an array of strings; None where NumPy's memory cannot be read.

    >>> words = words_of(np.array(["a", "", "x" * 40], string))
    >>> words is None or (words.short.tolist(), words.lengths[:2].tolist())
    ([True, True, False], [1, 0])
    """
    return _read(array) if _layout_is_known() else None


def _read(array: Array) -> Words:
    flat = np.ascontiguousarray(array).reshape(-1)
    memory = (ctypes.c_char * (flat.size * _SIZE)).from_address(flat.ctypes.data)
    halves = np.frombuffer(memoryview(memory), np.uint64).reshape(-1, 2)
    low, high = halves.T.copy()  # while `flat` lives
    high[high == 0] = _EMPTY
    return Words(low, high, (high >> _MARK) == _SHORT)


@functools.cache
def _layout_is_known() -> bool:
    """Whether short strings, and only these, lie in their elements."""
    if sys.byteorder != "little" or string.itemsize != _SIZE:
        return False
    texts = [
        "",
        "a",
        "é",
        "日本語",
        *("xyz" * 5)[:15].partition("y"),
        "0" * 15,
        "0" * 16,
        "0" * 300,
    ]
    array = np.array(["7" * 15, "7" * 40, *texts], string)
    array[0], array[1] = "ab", "c" * 70  # a shorter one in its place, a longer one elsewhere
    words = _read(array)
    for place, text in enumerate(["ab", "c" * 70, *texts]):
        code = text.encode()
        short = len(code) < _SIZE
        if bool(words.short[place]) != short:
            return False
        if short and words.rows[place].tobytes() != code.ljust(15, b"\0") + bytes([96 + len(code)]):
            return False
    return True


class HashTable:
    """Values of keys, looked up for whole arrays: open addressing, a quarter full.

    low, high: the keys as two uint64 each, all different. values: int64, not negative.
    """

    def __init__(self, low: Array, high: Array, values: Array) -> None:
        self._shift = np.uint64(64 - max(int(4 * len(low)).bit_length(), 3))
        size = 1 << (64 - int(self._shift))
        self._mask = np.int64(size - 1)
        self._low, self._high = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self._values = np.full(size, -1, np.int64)
        slots, left = self._slots(low, high), np.arange(len(low))
        while left.size:
            free = left[self._values[slots[left]] < 0]
            self._values[slots[free]] = free  # of several keys the last one gets the slot
            won = free[self._values[slots[free]] == free]
            self._low[slots[won]], self._high[slots[won]] = low[won], high[won]
            left = left[self._values[slots[left]] != left]
            slots[left] = (slots[left] + 1) & self._mask
        used = self._values >= 0
        self._values[used] = values[self._values[used]]

    def _slots(self, low: Array, high: Array) -> Array:
        mixed = (low ^ (high * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(0xD6E8FEB86659FD93)
        return (mixed >> self._shift).astype(np.int64)

    def find(self, low: Array, high: Array, missing: int) -> Array:
        """The value of each key, int64; `missing` for keys that are not in the table.

        >>> keys, high = np.array([5, 9], np.uint64), np.zeros(3, np.uint64)
        >>> table = HashTable(keys, high[:2], np.array([70, 71]))
        >>> table.find(np.array([9, 1, 5], np.uint64), high, -1).tolist()
        [71, -1, 70]
        """
        slots = self._slots(low, high)
        found = self._values[slots]
        there = (self._low[slots] == low) & (self._high[slots] == high)
        left = np.flatnonzero(~there & (found >= 0))
        found[found < 0] = missing
        while left.size:
            slots[left] = (slots[left] + 1) & self._mask
            at, values = slots[left], self._values[slots[left]]
            there = (self._low[at] == low[left]) & (self._high[at] == high[left])
            ended = there | (values < 0)
            found[left[ended]] = np.where(values[ended] < 0, missing, values[ended])
            left = left[~ended]
        return found
