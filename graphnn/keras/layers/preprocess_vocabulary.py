"""Vocabularies: made of data by their frequency, or given; and what both lookups share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphnn import ops, strings
from graphnn.compiler.ir.types import float32, int64
from graphnn.keras.layers.preprocess import (
    Array,
    Preprocessing,
    at_least,
    batches_of,
    choice,
    encode,
    encoded_shape,
    is_whole,
    not_adapted,
    plain,
    refuse_sparse,
)
from graphnn.keras.layers.preprocess_category import salt_of
from graphnn.runtime.errors import ArgumentError, StateError

MODES = ("int", "one_hot", "multi_hot", "count", "tf_idf")
DROPPED = -2  # the index of mask tokens where they are not counted
UNKNOWN = -1


class Tally:
    """How often tokens occur, and in how many documents."""

    def __init__(self) -> None:
        self.tokens: Counter[Any] = Counter()
        self.documents: Counter[Any] = Counter()
        self.count = 0  # of documents

    def add(self, tokens: Iterable[Any], documents: Sequence[Iterable[Any]] | None) -> None:
        """Take tokens into account, and the documents that they are in, where they matter."""
        self.tokens.update(tokens)
        if documents is not None:
            self.count += len(documents)
            for document in documents:
                self.documents.update(set(document))

    def most_common(self, without: Iterable[Any], limit: int | None) -> list[Any]:
        """Tokens by falling count, equal counts by falling token."""
        for token in without:
            self.tokens.pop(token, None)
        pairs = sorted(((n, token) for token, n in self.tokens.items()), reverse=True)
        return [token for _, token in pairs[:limit]]

    def inverse_frequencies(self, tokens: list[Any]) -> Array:
        """log(1 + documents / (1 + documents with the token)), float32."""
        having = np.array([self.documents[token] for token in tokens], np.float64)
        return np.log(1 + self.count / (1 + having)).astype(np.float32)


class IndexLookup(Preprocessing, ABC):
    """What both lookups share. Indices: the mask token (mode "int" only), `num_oov_indices` places
    for what is not in the vocabulary, then the tokens of the vocabulary, most frequent first."""

    vocabulary_dtype = ""

    def __init__(
        self,
        max_tokens: int | None,
        num_oov_indices: int,
        mask_token: Any,
        oov_token: Any,
        vocabulary: Any,
        idf_weights: Any,
        invert: bool,
        output_mode: str,
        pad_to_max_tokens: bool,
        sparse: bool,
        salt: Any,
        oov_method: str = "floormod",
        vocabulary_size: int | None = None,
        has_input_vocabulary: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        subject = type(self).__name__
        refuse_sparse(subject, sparse=sparse)
        self.output_mode = choice(subject, "output_mode", output_mode, MODES)
        self.max_tokens = (
            None if max_tokens is None else at_least(subject, "max_tokens", max_tokens, 2)
        )
        self.num_oov_indices = at_least(subject, "num_oov_indices", num_oov_indices, 0)
        self.oov_method = choice(subject, "oov_method", oov_method, ("floormod", "farmhash"))
        self.salt = salt_of(salt, subject)
        self.mask_token, self.oov_token, self.invert = mask_token, oov_token, invert
        self.pad_to_max_tokens = pad_to_max_tokens
        self._known_size = vocabulary_size
        self._fixed = vocabulary is not None or bool(has_input_vocabulary)
        self._check_settings(vocabulary, idf_weights)
        self._tally = Tally()
        # Arrays, since lists and dicts are searched for weights, and vocabularies are long.
        self._tokens, self._idf = np.empty(0), np.empty(0, np.float32)
        self._input_vocabulary: Array | None = None
        self._input_weights: Array | None = None
        if vocabulary is not None:
            vocabulary = self._parse(vocabulary)
            self.set_vocabulary(vocabulary, idf_weights)
            self._input_vocabulary = self._as_array(vocabulary)
            self._input_weights = None if idf_weights is None else np.asarray(idf_weights)

    def _check_settings(self, vocabulary: Any, idf_weights: Any) -> None:
        """Raise ArgumentError for settings that contradict each other."""
        weighted = self.output_mode == "tf_idf"
        wrong = {
            "invert=True needs output_mode='int'": self.invert and self.output_mode != "int",
            "pad_to_max_tokens=True needs max_tokens": self.pad_to_max_tokens
            and self.max_tokens is None,
            "idf_weights need output_mode='tf_idf'": idf_weights is not None and not weighted,
            "a vocabulary needs idf_weights in output_mode='tf_idf'": weighted
            and vocabulary is not None
            and idf_weights is None,
            "salt needs oov_method='farmhash'": self.salt is not None
            and self.vocabulary_dtype != "string"
            and self.oov_method != "farmhash",
        }
        for rule, broken in wrong.items():
            if broken:
                raise ArgumentError(
                    type(self).__name__,
                    received=f"max_tokens={self.max_tokens}, output_mode={self.output_mode!r}, "
                    f"invert={self.invert}, oov_method={self.oov_method!r}",
                    expected=rule,
                    fix="change one of these arguments",
                )

    # ---- the vocabulary ---------------------------------------------------------------------

    @property
    def input_vocabulary(self) -> list[Any] | None:
        """The vocabulary that was given to the constructor."""
        return None if self._input_vocabulary is None else self._input_vocabulary.tolist()

    @property
    def input_idf_weights(self) -> list[float] | None:
        """The weights that were given to the constructor."""
        return plain(self._input_weights)  # type: ignore[no-any-return]

    @property
    def _oov_start(self) -> int:
        return int(self.mask_token is not None and self.output_mode == "int")

    @property
    def _token_start(self) -> int:
        return self._oov_start + self.num_oov_indices

    def _special(self) -> list[Any]:
        return [self.mask_token] * self._oov_start + [self.oov_token] * self.num_oov_indices

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[Any]:
        """The tokens, at the place of their index.

        include_special_tokens: begin with the mask token and the out-of-vocabulary token.
        """
        special = self._special() if include_special_tokens else []
        return [*special, *self._tokens.tolist()]

    def vocabulary_size(self) -> int:
        """Number of indices, special tokens included."""
        return self._token_start + len(self._tokens)

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Replace the vocabulary.

        vocabulary: tokens, with or without the special ones in front; or the path of a text file
        with one token a line. idf_weights: one number for each of them, in mode "tf_idf" only.
        Raises ArgumentError for an empty vocabulary, for a token that occurs twice, for special
        tokens in other places, and for more tokens than `max_tokens`.
        """
        weighted = self.output_mode == "tf_idf"
        if weighted != (idf_weights is not None):
            raise ArgumentError(
                f"set_vocabulary of {self.name}",
                received=f"idf_weights={plain(idf_weights)!r:.60}",
                expected=f"{'' if weighted else 'no '}weights in mode {self.output_mode!r}",
                fix="give idf_weights in mode 'tf_idf', and in no other",
            )
        given = self._parse(vocabulary)
        tokens = self._without_special(given)
        self._check_tokens(tokens)
        self._use(tokens)
        if weighted:
            padded = len(tokens) < len(given)
            self._set_weights(np.asarray(idf_weights, np.float32), len(given), padded)

    def _parse(self, vocabulary: Any) -> list[Any]:
        """Tokens as Python values. A string is the path of a file."""
        if isinstance(vocabulary, str | os.PathLike):
            vocabulary = self._read(vocabulary)
        return self._values(vocabulary)

    def _read(self, path: Any) -> list[Any]:
        try:
            with open(path, encoding="utf-8", newline="\n") as file:
                lines = file.read().split("\n")
        except OSError as error:
            raise ArgumentError(
                f"the vocabulary of {self.name}",
                received=f"the file {str(path)!r}, which cannot be read: {error.strerror}",
                expected="a text file with one token a line",
                fix="check the path, or give a list of tokens",
            ) from None
        while lines and not lines[-1]:
            lines.pop()
        return self._from_lines([line.removesuffix("\r") for line in lines])

    @abstractmethod
    def _values(self, vocabulary: Any) -> list[Any]: ...

    @abstractmethod
    def _from_lines(self, lines: list[str]) -> list[Any]: ...

    def _without_special(self, given: list[Any]) -> list[Any]:
        special = self._special()
        return given[len(special) :] if given[: len(special)] == special else given

    def _check_tokens(self, tokens: list[Any]) -> None:
        problem = ""
        if not tokens:
            problem = "no token"
        elif len(set(tokens)) < len(tokens):
            twice = [t for t, n in Counter(tokens).items() if n > 1]
            problem = f"tokens that occur more than once: {twice[:5]}"
        elif self.mask_token is not None and self.mask_token in tokens:
            problem = f"the mask token {self.mask_token!r} at place {tokens.index(self.mask_token)}"
        elif self.invert and self.oov_token is not None and self.oov_token in tokens:
            problem = f"the OOV token {self.oov_token!r} at place {tokens.index(self.oov_token)}"
        elif self.max_tokens is not None and self._token_start + len(tokens) > self.max_tokens:
            problem = f"{self._token_start + len(tokens)} tokens with max_tokens={self.max_tokens}"
        if problem:
            raise ArgumentError(
                f"the vocabulary of {self.name}",
                received=problem,
                expected="different tokens, at most max_tokens of them with the special ones, "
                f"which may stand in front in just this order: {self._special()}",
                fix="leave the special tokens out, and each token once in",
            )

    def _use(self, tokens: list[Any]) -> None:
        """Look tokens up from now on."""
        self._tokens, self._known_size = self._as_array(tokens), None

    @abstractmethod
    def _as_array(self, tokens: list[Any]) -> Array: ...

    def _set_weights(self, weights: Array, count: int, special_included: bool) -> None:
        if weights.shape != (count,):
            raise ArgumentError(
                f"set_vocabulary of {self.name}",
                received=f"idf_weights of shape {weights.shape} for {count} tokens",
                expected="one number for each token",
                fix="give as many weights as tokens",
            )
        front = 0 if special_included else self._token_start
        self._idf = self._padded(weights, front)

    def _padded(self, weights: Array, front: int) -> Array:
        """Weights with the average in front, for unknown tokens, and zeros up to the depth."""
        average = weights.mean() if weights.size else 0.0
        weights = np.concatenate((np.full(front, average, np.float32), weights))
        return np.pad(weights, (0, self._depth() - len(weights)))

    def _depth(self) -> int:
        if self.pad_to_max_tokens and self.max_tokens is not None:
            return self.max_tokens
        return self.vocabulary_size()

    # ---- adapt ------------------------------------------------------------------------------

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Make the vocabulary of the tokens in data, most frequent first, ties in falling order.

        data: an array, a tensor, nested lists, or batches of a Dataset or generator, which are read
        once; in memory are only the different tokens. In mode "tf_idf" each row is a document.
        steps: number of batches to read, all by default. Raises ArgumentError if the vocabulary was
        given to the constructor.
        """
        self.reset_state()
        if is_whole(data):
            array = self._keys(data)
            self.update_state(array[:, None] if array.ndim == 1 else array)
        else:
            for batch in batches_of(data, self.name, steps):
                self.update_state(batch)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Take a batch into account, for the vocabulary that `finalize_state` sets."""
        array = self._keys(data)
        if self.output_mode != "tf_idf":
            self.count_tokens(self._counts(array), None)
            return
        tokens = self._countable(array)
        count = len(array) if array.ndim > 1 else 1
        size = len(tokens) // max(count, 1)
        self.count_tokens(tokens, [tokens[i * size : (i + 1) * size] for i in range(count)])

    def count_tokens(self, tokens: Iterable[Any], documents: Any) -> None:
        """`update_state` for tokens that have been taken apart already, or a dict of counts."""
        if self._fixed:
            raise ArgumentError(
                f"adapt of {self.name}",
                received="a layer with a vocabulary from its constructor",
                expected="a layer without",
                fix="leave the vocabulary out, or do not call adapt",
            )
        self._tally.add(tokens, documents)

    def finalize_state(self) -> None:
        """Make the vocabulary of what has been seen since `reset_state`."""
        tally, self._tally = self._tally, Tally()
        special = [t for t in (self.mask_token, self.oov_token) if t is not None]
        limit = None if self.max_tokens is None else self.max_tokens - self._token_start
        tokens = tally.most_common(self._raw(special), limit)
        if not tokens:
            return
        self._use(self._cooked(tokens))
        if self.output_mode == "tf_idf":
            self._idf = self._padded(tally.inverse_frequencies(tokens), self._token_start)

    def reset_state(self) -> None:
        """Forget what has been seen; the vocabulary stays."""
        self._tally = Tally()

    @abstractmethod
    def _keys(self, data: Any) -> Array:
        """Data as an array of tokens."""

    def _counts(self, array: Array) -> Any:
        """All tokens of an array, or a dict that says how often each one occurs."""
        return self._countable(array)

    @abstractmethod
    def _countable(self, array: Array) -> list[Any]:
        """All tokens of an array in the form in which they are counted."""

    def _raw(self, tokens: list[Any]) -> list[Any]:
        return tokens

    def _cooked(self, tokens: list[Any]) -> list[Any]:
        return tokens

    # ---- the call ---------------------------------------------------------------------------

    def _check_ready(self) -> None:
        if not self._tokens.size:
            raise not_adapted(self, "vocabulary")

    def vectors(self, indices: Any) -> Any:
        """Indices in the form of `output_mode`; negative ones count for nothing."""
        if self.output_mode != "tf_idf":
            return encode(indices, self.output_mode, self._depth(), "int64")
        counts = encode(indices, "count", self._depth(), "float32")
        return counts * ops.convert_to_tensor(self._idf)

    @property
    def output_dtype(self) -> Any:
        """Dtype of the results."""
        if self.invert:
            return strings.string if self.vocabulary_dtype == "string" else int64
        return float32 if self.output_mode == "tf_idf" else int64

    def compute_output_shape(self, input_shape: Any) -> Any:
        known = self.pad_to_max_tokens or self._tokens.size > 0
        return encoded_shape(
            input_shape, self.output_mode, self._depth() if known else self._known_size
        )

    # ---- configs and files ------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "invert": self.invert,
            "max_tokens": self.max_tokens,
            "num_oov_indices": self.num_oov_indices,
            "oov_token": self.oov_token,
            "mask_token": self.mask_token,
            "output_mode": self.output_mode,
            "sparse": False,
            "pad_to_max_tokens": self.pad_to_max_tokens,
            "idf_weights": self.input_idf_weights,
            "vocabulary": self.input_vocabulary,
            "vocabulary_size": self.vocabulary_size() if self._tokens.size else self._known_size,
            "salt": self.salt,
        }

    def save_own_variables(self, store: Any) -> None:
        """Put the idf weights into a store of arrays."""
        if self._idf.size:
            store["idf_weights"] = self._idf

    def load_own_variables(self, store: Any) -> None:
        """Take the idf weights from a store."""
        if self.output_mode == "tf_idf":
            self._idf = np.asarray(store["idf_weights"], np.float32)

    def save_assets(self, dir_path: Any) -> None:
        """Write vocabulary.txt, unless the vocabulary is in the config.

        Raises StateError for a token with a line break.
        """
        if self._input_vocabulary is not None:
            return
        lines = [str(token) for token in self.get_vocabulary()]
        if any("\n" in line or line.endswith("\r") for line in lines):
            raise StateError(
                f"saving of {self.name}",
                received="a vocabulary in which a token holds a line break",
                expected="tokens of one line, since the file has one line for each",
                fix="give the vocabulary to the constructor: then it is stored in the config",
            )
        path = os.path.join(dir_path, "vocabulary.txt")
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write("\n".join(lines))

    def load_assets(self, dir_path: Any) -> None:
        """Read vocabulary.txt, unless the vocabulary is in the config."""
        if self._input_vocabulary is not None:
            return
        given = self._parse(os.path.join(dir_path, "vocabulary.txt"))
        if given:
            self._use(given[self._token_start :])


def unknown_tokens(layer: Any, tokens: list[Any]) -> ArgumentError:
    """The error for tokens that have no index."""
    return ArgumentError(
        f"a call of {layer.name}",
        received="tokens that are not in the vocabulary: " + ", ".join(map(repr, tokens)),
        expected="tokens of the vocabulary only, since num_oov_indices=0",
        fix="set num_oov_indices=1, or add the tokens to the vocabulary",
    )
