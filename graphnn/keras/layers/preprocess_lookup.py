"""StringLookup and IntegerLookup: entries of a vocabulary as integers, and back."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from graphnn import ops, strings
from graphnn.keras.layers.preprocess import (
    Array,
    HostLayer,
    as_tensor,
    choice,
    count_not_above,
    numbers,
)
from graphnn.keras.layers.preprocess_hash import buckets, number_buckets, text_buckets
from graphnn.keras.layers.preprocess_vocabulary import (
    DROPPED,
    UNKNOWN,
    IndexLookup,
    unknown_tokens,
)
from graphnn.keras.layers.registry import register
from graphnn.short_strings import HashTable, words_of
from graphnn.tensor import Tensor

_MANY = 256  # strings from which on reading NumPy's memory is faster than Python
_DENSE = 1 << 16  # the range of integers up to which a table holds all of it


class _Table:
    """Indices of strings. A dict in an attribute of a layer would be searched for weights."""

    def __init__(self, indices: dict[str, int]) -> None:
        self.text = indices

    def find(self, array: Array) -> Array:
        """The index of each string of a 1-D array, UNKNOWN where there is none."""
        words = words_of(array) if array.size >= _MANY else None
        if words is None or self.short is None:
            return strings.lookup(self.text, array.tolist(), UNKNOWN)
        found = self.short.find(words.low, words.high, UNKNOWN - DROPPED) + DROPPED
        long = np.flatnonzero(~words.short)
        if long.size:
            found[long] = strings.lookup(self.text, array[long].tolist(), UNKNOWN)
        return found

    @functools.cached_property
    def short(self) -> HashTable | None:
        """The short strings among them."""
        words = words_of(np.array(list(self.text), strings.string))
        if words is None:
            return None
        # Tables hold no negative numbers: DROPPED is 0.
        values = np.array(list(self.text.values()), np.int64) - DROPPED
        keys = words.low[words.short], words.high[words.short]
        return HashTable(*keys, values[words.short])

    @functools.cached_property
    def utf8(self) -> dict[bytes, int]:
        """The same for strings in UTF-8."""
        return {s.encode("utf-8"): i for s, i in self.text.items()}


@register()
class StringLookup(HostLayer, IndexLookup):
    """The index of each string in a vocabulary.

    max_tokens: the greatest size of the vocabulary, special tokens included. num_oov_indices:
    places for unknown strings, which a hash spreads over them; 0 makes them an error. mask_token: a
    string that gets index 0, and is not counted in vectors. oov_token: what unknown indices become
    with `invert`. vocabulary: strings or the path of a file with one a line, instead of `adapt`.
    idf_weights: their weights in mode "tf_idf". invert: indices to strings. output_mode: "int", or
    vectors "one_hot", "multi_hot", "count", "tf_idf" over the last axis. pad_to_max_tokens: vectors
    of max_tokens entries. salt: one or two integers that make another hash.
    Raises ArgumentError for settings that contradict each other. Runs on the host.
    Result: int64 (float32 for "tf_idf", strings with `invert`), the shape of the inputs.

    >>> layer = graphnn.keras.layers.StringLookup(vocabulary=["a", "b"])
    >>> layer([["a", "z"], ["b", "a"]]).numpy().tolist()
    [[1, 0], [2, 1]]
    """

    vocabulary_dtype = "string"

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: Any = None,
        oov_token: Any = "[UNK]",
        vocabulary: Any = None,
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        pad_to_max_tokens: bool = False,
        sparse: bool = False,
        encoding: str = "utf-8",
        name: str | None = None,
        salt: Any = None,
        **kwargs: Any,
    ) -> None:
        self.encoding = encoding
        if invert:
            self.input_dtype = "int64"
        self._table, self._inverse = _Table({}), np.empty(0)
        super().__init__(
            max_tokens,
            num_oov_indices,
            mask_token,
            oov_token,
            vocabulary,
            idf_weights,
            invert,
            output_mode,
            pad_to_max_tokens,
            sparse,
            salt,
            name=name,
            **kwargs,
        )

    def _values(self, vocabulary: Any) -> list[Any]:
        array = strings.text_array(vocabulary, f"the vocabulary of {self.name}")
        return array.reshape(-1).tolist()

    def _from_lines(self, lines: list[str]) -> list[Any]:
        return lines

    def _use(self, tokens: list[Any]) -> None:
        super()._use(tokens)
        if self.invert:
            every = [*self._special(), *tokens, self.oov_token or ""]
            self._inverse = strings.text_array(every)
            return
        start = self._token_start
        table = {token: start + i for i, token in enumerate(tokens)}
        if self.mask_token is not None:
            table[self.mask_token] = 0 if self.output_mode == "int" else DROPPED
        self._table = _Table(table)

    def _as_array(self, tokens: list[Any]) -> Array:
        return np.array(tokens, strings.string)

    def _keys(self, data: Any) -> Array:
        return strings.text_array(data, f"adapt of {self.name}")

    def _countable(self, array: Array) -> list[Any]:
        return array.reshape(-1).tolist()

    def _raw(self, tokens: list[Any]) -> list[Any]:
        # TextVectorization counts tokens in UTF-8.
        return [*tokens, *(t.encode("utf-8") for t in tokens)]

    def _cooked(self, tokens: list[Any]) -> list[Any]:
        if isinstance(tokens[0], str):
            return tokens
        return [t.decode("utf-8") for t in tokens]

    def indices(self, tokens: list[Any]) -> Array:
        """The index of each token, int64; -2 for masks that vectors do not count.

        tokens: strings, or all of them in UTF-8. Raises StateError without a vocabulary, and
        ArgumentError for unknown tokens without places for them.
        """
        self._check_ready()
        in_utf8 = bool(tokens) and isinstance(tokens[0], bytes)
        table: dict[Any, int] = self._table.utf8 if in_utf8 else self._table.text
        if self.num_oov_indices == 1:
            return strings.lookup(table, tokens, self._oov_start)
        found = strings.lookup(table, tokens, UNKNOWN)
        unknown = np.flatnonzero(found == UNKNOWN)
        if not unknown.size:
            return found
        strange = [tokens[i] for i in unknown.tolist()]
        if self.num_oov_indices == 0:
            raise unknown_tokens(self, strings.text_array(strange[:5]).tolist())
        hashed = strange if in_utf8 else strings.encoded(strings.text_array(strange))
        found[unknown] = buckets(hashed, self.num_oov_indices, self.salt) + self._oov_start
        return found

    def _indices_of(self, array: Array) -> Array:
        """`indices` of a 1-D array of strings."""
        self._check_ready()
        found = self._table.find(array)
        unknown = np.flatnonzero(found == UNKNOWN)
        if not unknown.size:
            return found
        if self.num_oov_indices == 0:
            raise unknown_tokens(self, array[unknown[:5]].tolist())
        found[unknown] = self._oov_start
        if self.num_oov_indices > 1:
            found[unknown] += text_buckets(array[unknown], self.num_oov_indices, self.salt)
        return found

    def call(self, inputs: Any) -> Any:
        if self.invert:
            return self._invert(inputs)
        array = strings.text_array(inputs, f"a call of {self.name}")
        found = self._indices_of(array.reshape(-1)).reshape(array.shape)
        return self.vectors(Tensor(found))

    def _invert(self, inputs: Any) -> Any:
        self._check_ready()
        tensor = ops.convert_to_tensor(inputs)
        places = strings.host_array(tensor, f"a call of {self.name}").astype(np.int64, copy=False)
        last = len(self._inverse) - 1
        inside = (places >= 0) & (places < last)
        return Tensor(np.asarray(self._inverse[np.where(inside, places, last)], strings.string))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"oov_method": self.oov_method, "encoding": self.encoding}


@register()
class IntegerLookup(IndexLookup):
    """The index of each integer in a vocabulary; as StringLookup.

    oov_method: how unknown integers are spread over several places: "floormod", by their remainder,
    or "farmhash", by a hash (on the host only; with `salt` another one).
    Can be part of compiled models: there it is a binary search.

    >>> layer = graphnn.keras.layers.IntegerLookup(vocabulary=[12, 36, 1138, 42])
    >>> layer([[12, 1138], [42, 1000]]).numpy().tolist()
    [[1, 3], [4, 0]]
    """

    vocabulary_dtype = input_dtype = "int64"

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: Any = None,
        oov_token: Any = -1,
        vocabulary: Any = None,
        vocabulary_dtype: str = "int64",
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        sparse: bool = False,
        pad_to_max_tokens: bool = False,
        oov_method: str = "floormod",
        salt: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        choice("IntegerLookup", "vocabulary_dtype", vocabulary_dtype, ("int64",))
        # Keys in ascending order and the index of each; or tokens by index, with `invert`.
        self._sorted, self._places = np.empty(0, np.int64), np.empty(0, np.int64)
        # The index of each integer in the range of the keys, where that is not too large.
        self._dense = np.empty(0, np.int64)
        self._hashed: HashTable | None = None  # places of the sorted keys, for eager calls
        super().__init__(
            max_tokens,
            num_oov_indices,
            mask_token,
            oov_token,
            vocabulary,
            idf_weights,
            invert,
            output_mode,
            pad_to_max_tokens,
            sparse,
            salt,
            oov_method,
            name=name,
            **kwargs,
        )

    def _values(self, vocabulary: Any) -> list[Any]:
        array = numbers(vocabulary, self.name).reshape(-1)
        return array.astype(np.int64).tolist()

    def _from_lines(self, lines: list[str]) -> list[Any]:
        return [int(line) for line in lines]

    def _use(self, tokens: list[Any]) -> None:
        super()._use(tokens)
        if self.invert:
            every = [*self._special(), *tokens, self.oov_token]
            self._places = np.array(every, np.int64)
            return
        keys = np.array(tokens, np.int64)
        places = np.arange(len(tokens), dtype=np.int64) + self._token_start
        if self.mask_token is not None:
            keys = np.append(keys, np.int64(self.mask_token))
            places = np.append(places, 0 if self.output_mode == "int" else DROPPED)
        order = np.argsort(keys)
        self._sorted, self._places = keys[order], places[order]
        self._hashed = None
        low, high = int(self._sorted[0]), int(self._sorted[-1])
        self._dense = np.empty(0, np.int64)
        if high - low < max(4 * len(keys), _DENSE):
            self._dense = np.full(high - low + 1, UNKNOWN, np.int64)
            self._dense[self._sorted - low] = self._places

    def _as_array(self, tokens: list[Any]) -> Array:
        return np.array(tokens, np.int64)

    def _keys(self, data: Any) -> Array:
        return numbers(data, self.name).astype(np.int64)

    def _countable(self, array: Array) -> list[Any]:
        return array.reshape(-1).tolist()

    def _counts(self, array: Array) -> Any:
        tokens, counts = np.unique(array, return_counts=True)
        return dict(zip(tokens.tolist(), counts.tolist(), strict=True))

    def _cast_input(self, value: Any) -> Any:
        return as_tensor(value)  # a low precision would merge large integers

    def call(self, inputs: Any) -> Any:
        self._check_ready()
        keys = ops.cast(inputs, "int64")
        if self.invert:
            last = len(self._places) - 1
            inside = ops.logical_and(keys >= 0, keys < last)
            return ops.take(ops.convert_to_tensor(self._places), ops.where(inside, keys, last))
        return self.vectors(self._found(keys))

    def _found(self, keys: Any) -> Any:
        """The index of each key."""
        table, place, known = self._search(keys)
        places = ops.convert_to_tensor(table)
        if self.num_oov_indices:
            return ops.where(known, ops.take(places, place), self._unknown(keys))
        if not keys.is_traced and not bool(ops.all(known)):
            raise unknown_tokens(self, np.asarray(keys)[~np.asarray(known)][:5].tolist())
        # In a compiled program the check of the index raises OutOfRangeError.
        return ops.take(places, ops.where(known, place, len(table)))

    def _search(self, keys: Any) -> tuple[Array, Any, Any]:
        """A table of indices, the place of each key in it, and whether it is there."""
        if not self._dense.size and not keys.is_traced:
            array = np.asarray(keys)
            found = self._hash_table().find(*_halves(array.reshape(-1)), UNKNOWN)
            found = found.reshape(array.shape)
            place, known = np.maximum(found, 0), found >= 0  # of 0-d arrays these are numbers
            return self._places, Tensor(np.asarray(place)), Tensor(np.asarray(known))
        if not self._dense.size:
            place = ops.maximum(count_not_above(self._sorted, keys) - 1, 0)
            known = ops.equal(ops.take(ops.convert_to_tensor(self._sorted), place), keys)
            return self._places, place, known
        low, high = int(self._sorted[0]), int(self._sorted[-1])
        inside = ops.logical_and(keys >= low, keys <= high)
        place = ops.where(inside, keys, low) - low
        there = ops.not_equal(ops.take(ops.convert_to_tensor(self._dense), place), UNKNOWN)
        return self._dense, place, ops.logical_and(inside, there)

    def _hash_table(self) -> HashTable:
        if self._hashed is None:
            keys = _halves(self._sorted)
            self._hashed = HashTable(*keys, np.arange(len(self._sorted)))
        return self._hashed

    def _unknown(self, keys: Any) -> Any:
        """The place of each key if it is not in the vocabulary."""
        if self.num_oov_indices == 1:
            return np.int64(self._oov_start)
        if self.oov_method == "floormod":
            return keys % self.num_oov_indices + self._oov_start
        array = strings.host_array(keys, f"a call of {self.name}")
        hashed = number_buckets(array, self.num_oov_indices, self.salt)
        return Tensor(hashed.reshape(array.shape) + self._oov_start)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "vocabulary_dtype": "int64",
            "oov_method": self.oov_method,
        }


def _halves(keys: Array) -> tuple[Array, Array]:
    """Integers as keys of a HashTable, which has two words for each."""
    words = np.ascontiguousarray(keys, np.int64).view(np.uint64)
    return words, np.zeros(words.shape, np.uint64)
