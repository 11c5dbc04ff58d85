"""TextVectorization: text to integers or vectors, by words, characters or n-grams of them."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from graphnn import strings
from graphnn.keras.layers.preprocess import (
    Array,
    HostLayer,
    at_least,
    batches_of,
    choice,
    counted_rows,
    is_whole,
    refuse_sparse,
)
from graphnn.keras.layers.preprocess_lookup import StringLookup
from graphnn.keras.layers.preprocess_vocabulary import MODES
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError, DTypeError
from graphnn.tensor import Operand, Tensor

_STANDARDS = ("lower_and_strip_punctuation", "lower", "strip_punctuation")
_SPLITS = ("whitespace", "character")
_PUNCTUATION = string.punctuation.encode()
_LOWER = bytes.maketrans(string.ascii_uppercase.encode(), string.ascii_lowercase.encode())
_CHARACTER = re.compile(rb"[\x00-\x7f]|[\xc0-\xff][\x80-\xbf]*")  # one character in UTF-8
_ADAPT_AT_ONCE = 1 << 14  # strings of a large array that `adapt` works on at once


class Documents(NamedTuple):
    """Tokens of each document in UTF-8, and the shape of the axes that the documents are on."""

    tokens: list[list[bytes]]
    lead: tuple[int, ...]

    @property
    def flat(self) -> list[bytes]:
        """All tokens."""
        return list(chain.from_iterable(self.tokens))

    @property
    def lengths(self) -> Array:
        """Number of tokens of each document."""
        return np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))


@register()
class TextVectorization(HostLayer):
    """Text as integers, one for each token, or as one vector for each text.

    max_tokens: the greatest size of the vocabulary, special tokens included. standardize:
    "lower_and_strip_punctuation" (of ASCII), "lower", "strip_punctuation", None, or a function of a
    tensor of strings. split: "whitespace", "character", None, or a function of a 1-D tensor of
    strings that returns a list of tokens for each. ngrams: None, a number (all n-grams up to it) or
    a tuple of numbers. output_mode: "int", "multi_hot", "count" or "tf_idf".
    output_sequence_length: in mode "int" the length to pad with 0 or cut to; that of the longest
    text by default.
    pad_to_max_tokens: vectors of max_tokens entries. vocabulary: tokens or the path of a file with
    one a line, instead of `adapt`. idf_weights: their weights in mode "tf_idf".
    Raises ArgumentError for bad settings. Runs on the host: use it in `Dataset.map`.

    In mode "int" 0 is padding and 1 stands for unknown tokens; in vectors entry 0 does.
    Inputs: text of shape () or (batch,) or (..., 1). Result: int64, shape (batch, length), or
    (batch, size of the vocabulary), which is float32 for "tf_idf".

    >>> layer = graphnn.keras.layers.TextVectorization()
    >>> layer.adapt(["the cat", "The dog!", "a cat"])
    >>> layer.get_vocabulary()
    ['', '[UNK]', 'the', 'cat', 'dog', 'a']
    >>> layer(["A cat and the dog"]).numpy().tolist()
    [[5, 3, 1, 2, 4]]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        standardize: Any = "lower_and_strip_punctuation",
        split: Any = "whitespace",
        ngrams: Any = None,
        output_mode: str = "int",
        output_sequence_length: int | None = None,
        pad_to_max_tokens: bool = False,
        vocabulary: Any = None,
        idf_weights: Any = None,
        sparse: bool = False,
        ragged: bool = False,
        encoding: str = "utf-8",
        name: str | None = None,
        vocabulary_size: int | None = None,
        has_input_vocabulary: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        subject = "TextVectorization"
        refuse_sparse(subject, sparse=sparse, ragged=ragged)
        mode = choice(subject, "output_mode", output_mode, MODES)
        if not callable(standardize):
            choice(subject, "standardize", standardize, (*_STANDARDS, None))
        if not callable(split):
            choice(subject, "split", split, (*_SPLITS, None))
        self._standardize, self._split = standardize, split
        self._ngrams_given = ngrams
        self._ngrams = _widths(ngrams)
        self._length = _sequence_length(output_sequence_length, mode)
        self._output_mode, self._encoding = mode, encoding
        self._lookup_layer = StringLookup(
            max_tokens=max_tokens,
            vocabulary=vocabulary,
            idf_weights=idf_weights,
            pad_to_max_tokens=pad_to_max_tokens,
            mask_token="",
            output_mode=mode,
            encoding=encoding,
            name=self.name,
            vocabulary_size=vocabulary_size,
            has_input_vocabulary=has_input_vocabulary,
        )

    # ---- the vocabulary ---------------------------------------------------------------------

    def adapt(self, data: Any, batch_size: int | None = None, steps: int | None = None) -> None:
        """Make the vocabulary of the tokens in data, most frequent first, ties in falling order.

        data: text as an array, a tensor or a list, or batches of a Dataset or generator, which are
        read once; in memory are only the different tokens. steps: number of batches to read, all by
        default. Raises ArgumentError if the vocabulary was given to the constructor.
        """
        self.reset_state()
        if is_whole(data):
            array = np.atleast_1d(strings.text_array(data, f"adapt of {self.name}"))
            for start in range(0, len(array), _ADAPT_AT_ONCE):
                self.update_state(array[start : start + _ADAPT_AT_ONCE])
        else:
            for batch in batches_of(data, self.name, steps):
                self.update_state(batch)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Take a batch into account, for the vocabulary that `finalize_state` sets."""
        documents = self._documents(data, f"adapt of {self.name}")
        rows = documents.tokens if self._output_mode == "tf_idf" else None
        self._lookup_layer.count_tokens(chain.from_iterable(documents.tokens), rows)

    def finalize_state(self) -> None:
        """Make the vocabulary of what has been seen since `reset_state`."""
        self._lookup_layer.finalize_state()

    def reset_state(self) -> None:
        """Forget what has been seen; the vocabulary stays."""
        self._lookup_layer.reset_state()

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[str]:
        """The tokens, at the place of their index.

        include_special_tokens: begin with the padding and the token for unknown ones.
        """
        return self._lookup_layer.get_vocabulary(include_special_tokens)

    def vocabulary_size(self) -> int:
        """Number of indices, special tokens included."""
        return self._lookup_layer.vocabulary_size()

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Replace the vocabulary: tokens, or the path of a text file with one token a line.

        idf_weights: one number for each of them, in mode "tf_idf" only. Raises ArgumentError as
        `StringLookup.set_vocabulary` does.
        """
        self._lookup_layer.set_vocabulary(vocabulary, idf_weights)

    # ---- text to tokens ---------------------------------------------------------------------

    def _documents(self, data: Any, subject: str) -> Documents:
        array = strings.text_array(data, subject)
        if callable(self._standardize):
            array = strings.text_array(self._standardize(Tensor(array)), subject)
        if self._split is None:
            return self._unsplit(array)
        if array.ndim > 1:
            array = _without_last_axis(array, subject)
        tokens = self._tokens(array, subject)
        return Documents(
            [self._with_ngrams(t) for t in tokens] if self._ngrams else tokens, array.shape
        )

    def _unsplit(self, array: Array) -> Documents:
        """Tokens that have been split already, on the last axis."""
        rows = np.atleast_1d(array)
        size = rows.shape[-1]
        flat = self._standardized(strings.encoded(rows))
        count = len(flat) // size if size else int(np.prod(rows.shape[:-1]))
        tokens = [flat[i * size : (i + 1) * size] for i in range(count)]
        if self._ngrams:
            tokens = [self._with_ngrams(t) for t in tokens]
        return Documents(tokens, rows.shape[:-1])

    def _standardized(self, items: list[bytes]) -> list[bytes]:
        # Only ASCII is changed, so bytes of UTF-8 can be translated one by one, in C.
        if callable(self._standardize) or self._standardize is None:
            return items
        table = _LOWER if "lower" in self._standardize else None
        drop = _PUNCTUATION if "punctuation" in self._standardize else b""
        return [item.translate(table, drop) for item in items]

    def _tokens(self, array: Array, subject: str) -> list[list[bytes]]:
        items = self._standardized(strings.encoded(array))
        if self._split == "whitespace":
            return [item.split() for item in items]  # bytes: white space of ASCII only
        if self._split == "character":
            return [_CHARACTER.findall(item) for item in items]
        return _rows(self._split(Tensor(strings.decoded(items))), len(items), subject)

    def _with_ngrams(self, tokens: list[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for width in self._ngrams or ():
            shifted = [tokens[i:] for i in range(width)]
            found += tokens if width == 1 else map(b" ".join, zip(*shifted, strict=False))
        return found

    # ---- tokens to numbers ------------------------------------------------------------------

    def call(self, inputs: Any) -> Any:
        documents = self._documents(inputs, f"a call of {self.name}")
        if self._output_mode not in ("int", "one_hot"):
            return self._vectors(documents)
        table = self._integers(documents)
        if self._output_mode == "int":
            return table
        return self._lookup_layer.vectors(table)

    def _integers(self, documents: Documents) -> Tensor:
        """One row of indices for each document; shorter ones end with 0, or -2 for one-hot."""
        if self._length is not None:
            cut = [tokens[: self._length] for tokens in documents.tokens]
            documents = Documents(cut, documents.lead)
        lengths = documents.lengths
        longest = int(lengths.max(initial=0))
        width = longest if self._length is None else self._length
        padding = 0 if self._output_mode == "int" else -2
        table = np.full((len(lengths), width), padding, np.int64)
        table[np.arange(width) < lengths[:, None]] = self._lookup_layer.indices(documents.flat)
        return Tensor(table.reshape(*documents.lead, width))

    def _vectors(self, documents: Documents) -> Tensor:
        lookup, lengths = self._lookup_layer, documents.lengths
        found = lookup.indices(documents.flat)
        rows, depth = np.repeat(np.arange(len(lengths)), lengths), lookup._depth()
        mode = "multi_hot" if self._output_mode == "multi_hot" else "count"
        dtype = "float32" if self._output_mode == "tf_idf" else "int64"
        table = counted_rows(rows, found, mode, len(lengths), depth, dtype)
        if self._output_mode == "tf_idf":
            table = table * lookup._idf
        return Tensor(table.reshape(*documents.lead, depth))

    @property
    def output_dtype(self) -> Any:
        """Dtype of the results."""
        return self._lookup_layer.output_dtype

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = tuple(input_shape)
        if self._split is None:
            lead, tokens = shape[:-1], shape[-1] if shape and not self._ngrams else None
        else:
            lead, tokens = shape[:-1] if len(shape) > 1 else shape, None
        if self._output_mode == "int":
            return (*lead, tokens if self._length is None else self._length)
        return self._lookup_layer.compute_output_shape((*lead, tokens))

    # ---- configs and files ------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        lookup = self._lookup_layer
        return super().get_config() | {
            "max_tokens": lookup.max_tokens,
            "standardize": self._standardize,
            "split": self._split,
            "ngrams": self._ngrams_given,
            "output_mode": self._output_mode,
            "output_sequence_length": self._length,
            "pad_to_max_tokens": lookup.pad_to_max_tokens,
            "sparse": False,
            "ragged": False,
            "vocabulary": lookup.input_vocabulary,
            "idf_weights": lookup.input_idf_weights,
            "encoding": self._encoding,
            "vocabulary_size": lookup.get_config()["vocabulary_size"],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TextVectorization:
        """An equal layer; a vocabulary from `adapt` is not in the config."""
        ngrams = config.get("ngrams")
        return cls(**config | {"ngrams": tuple(ngrams) if isinstance(ngrams, list) else ngrams})

    def save_own_variables(self, store: Any) -> None:
        """Put the idf weights into a store of arrays."""
        self._lookup_layer.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Take the idf weights from a store."""
        self._lookup_layer.load_own_variables(store)

    def save_assets(self, dir_path: Any) -> None:
        """Write vocabulary.txt, unless the vocabulary is in the config."""
        self._lookup_layer.save_assets(dir_path)

    def load_assets(self, dir_path: Any) -> None:
        """Read vocabulary.txt, unless the vocabulary is in the config."""
        self._lookup_layer.load_assets(dir_path)


def _widths(ngrams: Any) -> tuple[int, ...] | None:
    """The sizes of n-grams. Raises ArgumentError for anything but None, a number or a tuple."""
    if ngrams is None:
        return None
    if isinstance(ngrams, int):
        ngrams = tuple(range(1, at_least("TextVectorization", "ngrams", ngrams, 1) + 1))
    if not isinstance(ngrams, tuple) or not all(isinstance(n, int) and n > 0 for n in ngrams):
        raise ArgumentError(
            "TextVectorization",
            received=f"ngrams={ngrams!r}",
            expected="None, a positive integer, or a tuple of positive integers",
            fix="for example ngrams=2 or ngrams=(2, 3)",
        )
    return ngrams


def _sequence_length(length: Any, mode: str) -> int | None:
    if length is None:
        return None
    if mode != "int":
        raise ArgumentError(
            "TextVectorization",
            received=f"output_sequence_length={length!r} with output_mode={mode!r}",
            expected="output_sequence_length only with output_mode='int'",
            fix="leave one of the two out",
        )
    return at_least("TextVectorization", "output_sequence_length", length, 0)


def _without_last_axis(array: Array, subject: str) -> Array:
    if array.shape[-1] == 1:
        return array[..., 0]
    raise ArgumentError(
        subject,
        received=f"text of shape {array.shape}",
        expected="one text for each example: shape (batch,) or (batch, 1)",
        fix="give one axis less, or use split=None for text that has been split already",
    )


def _rows(result: Any, count: int, subject: str) -> list[list[bytes]]:
    """What a user's split function returns: a list of tokens for each text."""
    if isinstance(result, Operand):
        result = strings.host_array(result, subject)
    rows: list[Any] = result.tolist() if isinstance(result, np.ndarray) else list(result)
    if len(rows) != count or not all(_is_row(row) for row in rows):
        raise DTypeError(
            subject,
            received=f"{len(rows)} items from the split function, the first of type "
            f"{type(rows[0]).__name__ if rows else 'nothing'}, for {count} texts",
            expected="a list of tokens for each text, or a 2-D tensor of strings",
            fix="return for example [text.split(',') for text in texts.tolist()]",
        )
    return [
        [t if isinstance(t, bytes) else t.encode("utf-8") for t in row] for row in map(_items, rows)
    ]


def _is_row(row: Any) -> bool:
    return isinstance(row, Iterable) and not isinstance(row, str | bytes)


def _items(row: Any) -> list[Any]:
    return list(row.tolist()) if hasattr(row, "tolist") else list(row)
