"""Hashes of strings that are the same everywhere: FarmHash64 and SipHash-2-4, in NumPy.

All strings of one length are hashed together, in vectors of unsigned 64-bit integers, which wrap
around. Formulae: FarmHash (Google, `Fingerprint64`, the same as CityHash64's successor "na"), and
Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphnn.short_strings import words_of
from graphnn.strings import encoded

Array = np.ndarray[Any, Any]
Words = np.ndarray[Any, Any]  # uint64, one entry for each string
Bytes = np.ndarray[Any, Any]  # uint8, one row for each string

_K0, _K1, _K2 = (np.uint64(k) for k in (0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F))


def farmhash64(strings: list[bytes]) -> Words:
    """FarmHash's 64-bit fingerprint of each string.

    >>> hex(farmhash64([b"hello"])[0])
    '0xb48be5a931380ce8'
    """
    return _by_length(strings, _farm)


def siphash64(strings: list[bytes], key: tuple[int, int]) -> Words:
    """SipHash-2-4 of each string with a key of two unsigned 64-bit integers."""
    return _by_length(strings, lambda rows: _sip(rows, key))


def buckets(strings: list[bytes], count: int, salt: list[int] | None = None) -> Words:
    """A number from 0 to count - 1 for each string, int64; with a salt by another hash."""
    return _reduced(_by_length(strings, _function(salt)), count)


def text_buckets(array: Array, count: int, salt: list[int] | None = None) -> Words:
    """`buckets` of an array of strings, row-major."""
    words = words_of(array)
    if words is None:
        return buckets(encoded(array), count, salt)
    hashes = _by_row(words.rows, words.lengths, words.short, _function(salt))
    long = np.flatnonzero(~words.short)
    if long.size:
        hashes[long] = _by_length(encoded(array.reshape(-1)[long]), _function(salt))
    return _reduced(hashes, count)


def number_buckets(array: Array, count: int, salt: list[int] | None = None) -> Words:
    """`buckets` of the decimal digits of an array of integers, row-major.

    >>> number_buckets(np.array([12, -7]), 100).tolist() == buckets([b"12", b"-7"], 100).tolist()
    True
    """
    rows, lengths = _digits(array.reshape(-1))
    every = np.ones(len(rows), bool)
    return _reduced(_by_row(rows, lengths, every, _function(salt)), count)


def _function(salt: list[int] | None) -> Callable[[Bytes], Words]:
    if salt is None:
        return _farm
    key = (salt[0], salt[1])
    return lambda rows: _sip(rows, key)


def _reduced(hashes: Words, count: int) -> Words:
    return (hashes % np.uint64(count)).astype(np.int64)


def _by_row(
    rows: Bytes, lengths: Words, wanted: Words, function: Callable[[Bytes], Words]
) -> Words:
    """Hashes of the first bytes of rows, as many as `lengths` says."""
    result: Words = np.empty(len(rows), np.uint64)
    for length in np.unique(lengths[wanted]).tolist():
        chosen = np.flatnonzero(wanted & (lengths == length))
        result[chosen] = function(rows[chosen, :length])
    return result


def _digits(numbers: Array) -> tuple[Bytes, Words]:
    """Integers in decimal: bytes from the first column on, and how many there are."""
    negative = numbers < 0
    left = numbers.astype(np.uint64)
    left[negative] = np.uint64(0) - left[negative]
    if not left.size or left.max() < 1 << 32:
        left = left.astype(np.uint32)  # which divide faster
    columns: list[Bytes] = []
    lengths = negative.astype(np.int64)
    while True:
        lengths += (left > 0) | (not columns)
        following = left // left.dtype.type(10)
        columns.append((left - following * left.dtype.type(10)).astype(np.uint8) + ord("0"))
        left = following
        if not left.any():
            break
    rows = np.full((len(numbers), len(columns) + 1), ord("-"), np.uint8)
    digits = np.stack(columns[::-1], axis=1)
    for length in np.unique(lengths).tolist():
        for sign in (0, 1):
            chosen = np.flatnonzero((lengths == length) & (negative == sign))
            rows[chosen, sign:length] = digits[chosen, len(columns) - length + sign :]
    return rows, lengths


def _by_length(strings: list[bytes], function: Callable[[Bytes], Words]) -> Words:
    """A hash of rows of equal length, applied to strings of any lengths."""
    result: Words = np.empty(len(strings), np.uint64)
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        flat = np.frombuffer(b"".join([strings[i] for i in chosen.tolist()]), np.uint8)
        result[chosen] = function(flat.reshape(len(chosen), length))
    return result


def _word(rows: Bytes, at: int, size: int = 8) -> Words:
    """The little-endian integer of some bytes of each row."""
    part = np.ascontiguousarray(rows[:, at : at + size])
    words: Words = part.view(f"<u{size}")[:, 0].astype(np.uint64)
    return words


def _rotate(x: Words, by: int) -> Words:
    """Bits moved to the right, around the end."""
    result: Words = (x >> np.uint64(by)) | (x << np.uint64(64 - by))
    return result


def _shift_mix(x: Words) -> Words:
    result: Words = x ^ (x >> np.uint64(47))
    return result


# ---- FarmHash -------------------------------------------------------------------------------


def _farm(rows: Bytes) -> Words:
    count, length = rows.shape
    if length == 0:
        return np.full(count, _K2)
    if length <= 16:
        return _farm_16(rows, length)
    if length <= 32:
        return _farm_32(rows, length)
    return _farm_64(rows, length) if length <= 64 else _farm_long(rows, length)


def _mix(u: Words, v: Words, by: Any) -> Words:
    a = _shift_mix((u ^ v) * by)
    result: Words = _shift_mix((v ^ a) * by) * by
    return result


def _farm_16(rows: Bytes, length: int) -> Words:
    by = _K2 + np.uint64(2 * length)
    if length >= 8:
        a, b = _word(rows, 0) + _K2, _word(rows, length - 8)
        return _mix(_rotate(b, 37) * by + a, (_rotate(a, 25) + b) * by, by)
    if length >= 4:
        a, b = _word(rows, 0, 4), _word(rows, length - 4, 4)
        return _mix(np.uint64(length) + (a << np.uint64(3)), b, by)
    first, middle, last = (rows[:, i].astype(np.uint64) for i in (0, length >> 1, length - 1))
    y, z = first + (middle << np.uint64(8)), np.uint64(length) + (last << np.uint64(2))
    return _shift_mix((y * _K2) ^ (z * _K0)) * _K2


def _halves(rows: Bytes, length: int, by: Any, first: Any) -> tuple[Words, Words, Words]:
    """What the hashes of 17 to 64 bytes begin with: first word, and two sums over both ends."""
    a, b = _word(rows, 0) * first, _word(rows, 8)
    c, d = _word(rows, length - 8) * by, _word(rows, length - 16) * _K2
    return a, _rotate(a + b, 43) + _rotate(c, 30) + d, a + _rotate(b + _K2, 18) + c


def _farm_32(rows: Bytes, length: int) -> Words:
    by = _K2 + np.uint64(2 * length)
    _, u, v = _halves(rows, length, by, _K1)
    return _mix(u, v, by)


def _farm_64(rows: Bytes, length: int) -> Words:
    by = _K2 + np.uint64(2 * length)
    a, y, v = _halves(rows, length, by, _K2)
    z = _mix(y, v, by)
    e, f = _word(rows, 16) * by, _word(rows, 24)
    g, h = (y + _word(rows, length - 32)) * by, (z + _word(rows, length - 24)) * by
    return _mix(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, by)


Pair = tuple[Words, Words]


def _pair(rows: Bytes, at: int, a: Words, b: Words) -> Pair:
    """Two words that depend on 32 bytes and two seeds."""
    w, x, y, z = (_word(rows, at + 8 * i) for i in range(4))
    a = a + w
    b = _rotate(b + a + z, 21)
    c, a = a, a + x + y
    return a + z, b + _rotate(a, 44) + c


def _farm_long(rows: Bytes, length: int) -> Words:
    """More than 64 bytes: blocks of 64, then the last 64, which may overlap them."""
    zero = np.zeros(len(rows), np.uint64)
    seed = zero + np.uint64(81)
    y = seed * _K1 + np.uint64(113)
    z = _shift_mix(y * _K2 + np.uint64(113)) * _K2
    v: Pair = (zero, zero)
    w: Pair = (zero, zero)
    x = seed * _K2 + _word(rows, 0)
    for at in range(0, (length - 1) // 64 * 64, 64):
        x, y, z, v, w = _round(rows, at, x, y, z, v, w, _K1, 1)
    by = _K1 + ((z & np.uint64(0xFF)) << np.uint64(1))
    w = (w[0] + np.uint64((length - 1) & 63), w[1])
    v = (v[0] + w[0], v[1])
    w = (w[0] + v[0], w[1])
    x, y, z, v, w = _round(rows, length - 64, x, y, z, v, w, by, 9)
    return _mix(_mix(v[0], w[0], by) + _shift_mix(y) * _K0 + z, _mix(v[1], w[1], by) + x, by)


def _round(
    rows: Bytes, at: int, x: Words, y: Words, z: Words, v: Pair, w: Pair, by: Any, factor: int
) -> tuple[Words, Words, Words, Pair, Pair]:
    times = np.uint64(factor)
    x = _rotate(x + y + v[0] + _word(rows, at + 8), 37) * by
    y = _rotate(y + v[1] + _word(rows, at + 48), 42) * by
    x = x ^ (w[1] * times)
    y = y + v[0] * times + _word(rows, at + 40)
    z = _rotate(z + w[0], 33) * by
    v = _pair(rows, at, v[1] * by, x + w[0])
    w = _pair(rows, at + 32, z + w[1], y + _word(rows, at + 16))
    return z, y, x, v, w


# ---- SipHash --------------------------------------------------------------------------------

_SIP_START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def _sip(rows: Bytes, key: tuple[int, int]) -> Words:
    count, length = rows.shape
    keys = [np.uint64(k % (1 << 64)) for k in (*key, *key)]
    state = [np.full(count, np.uint64(s) ^ k) for s, k in zip(_SIP_START, keys, strict=True)]
    padded = np.zeros((count, length // 8 * 8 + 8), np.uint8)
    padded[:, :length] = rows
    padded[:, -1] = length & 0xFF
    for at in range(0, padded.shape[1], 8):
        word = _word(padded, at)
        state[3] = state[3] ^ word
        _sip_rounds(state, 2)
        state[0] = state[0] ^ word
    state[2] = state[2] ^ np.uint64(0xFF)
    _sip_rounds(state, 4)
    result: Words = state[0] ^ state[1] ^ state[2] ^ state[3]
    return result


def _sip_rounds(s: list[Words], count: int) -> None:
    for _ in range(count):
        s[0] = s[0] + s[1]
        s[1] = _rotate(s[1], 64 - 13) ^ s[0]
        s[0] = _rotate(s[0], 32)
        s[2] = s[2] + s[3]
        s[3] = _rotate(s[3], 64 - 16) ^ s[2]
        s[0] = s[0] + s[3]
        s[3] = _rotate(s[3], 64 - 21) ^ s[0]
        s[2] = s[2] + s[1]
        s[1] = _rotate(s[1], 64 - 17) ^ s[2]
        s[2] = _rotate(s[2], 32)
