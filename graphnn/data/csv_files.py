"""CSV files as elements: columns of numbers and of text, read block by block with pyarrow."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from graphnn.compiler.ir.types import as_dtype
from graphnn.data.blocks import Block, count, cut, row
from graphnn.data.elements import STRING, Array, to_array
from graphnn.data.paths import needed, open_binary
from graphnn.data.stage import UNKNOWN, Cursor, Stage, State, example_or_zeros
from graphnn.runtime.errors import ArgumentError
from graphnn.signature import TensorSpec

_BLOCK_BYTES = 1 << 20
_NUMERIC = ("int32", "int64", "float32", "float64")


@dataclass(frozen=True)
class Column:
    """One column: its dtype (STRING for text) and what a missing value becomes (None: an error)."""

    name: str
    dtype: Any
    default: Any = None

    @property
    def is_text(self) -> bool:
        """Whether the column holds text."""
        return isinstance(self.dtype, type(STRING))


@dataclass(frozen=True)
class Format:
    """How the files are written. names: of all columns in a file. missing: text of a missing value.

    header: whether the first line holds names.
    """

    names: tuple[str, ...]
    delimiter: str = ","
    quotes: bool = True
    missing: str = ""
    header: bool = True
    compression: str | None = None


class CsvRows(Stage):
    """The rows of CSV files. as_dict: elements are dicts by column name, else tuples."""

    columnar, name = True, "csv"

    def __init__(
        self, paths: list[str], columns: Sequence[Column], layout: Format, as_dict: bool
    ) -> None:
        super().__init__()
        self.paths, self.columns, self.layout, self.as_dict = paths, columns, layout, as_dict

    def open(self) -> Cursor:
        return _CsvCursor(self)

    def size(self) -> int:
        return UNKNOWN

    def spec(self) -> Any:
        return self.pack([TensorSpec((), c.dtype) for c in self.columns])

    def example(self, rows: int) -> Any:
        return example_or_zeros(self)

    def pack(self, values: Sequence[Any]) -> Any:
        """One value for each column as an element."""
        if not self.as_dict:
            return tuple(values)
        return {c.name: v for c, v in zip(self.columns, values, strict=True)}

    def settings(self) -> str:
        return ", ".join(c.name for c in self.columns)

    def parse(self, data: bytes, where: str) -> Block | None:
        """Columns from whole records. Raises ArgumentError for a record that cannot be read."""
        if not data.strip():
            return None
        arrow = needed("pyarrow", "pyarrow", "reading CSV files")
        try:
            table = _table(data, self.columns, self.layout)
        except arrow.ArrowInvalid as error:
            raise ArgumentError(
                f"reading {where}",
                received=str(error),
                expected=", ".join(f"{c.name}: {_kind(c)}" for c in self.columns),
                fix="correct the file, or give column_defaults with other dtypes",
            ) from None
        return self.pack([_column(table, c, where) for c in self.columns])


class _CsvCursor(Cursor):
    """A position is a file, the byte where the block at hand begins, and a row in it."""

    def __init__(self, stage: CsvRows) -> None:
        super().__init__()
        self.stage = stage
        self.file: BinaryIO | None = None
        self.rows: Block | None = None
        self.number = self.begin = self.after = self.used = 0

    def next(self) -> Any:
        if not self._ready():
            raise StopIteration
        self.used += 1
        return row(self.rows, self.used - 1)

    def block(self, most: int) -> Block | None:
        if not self._ready():
            return None
        block = cut(self.rows, self.used, self.used + most)
        self.used += count(block)
        return block

    def _ready(self) -> bool:
        """Whether there is an unused row at hand, after reading on if need be."""
        while self.rows is None or self.used >= count(self.rows):
            if self.number >= len(self.stage.paths):
                return False
            self._read()
        return True

    def _read(self) -> None:
        """Put the next block at hand, or go to the next file."""
        path, layout = self.stage.paths[self.number], self.stage.layout
        if self.file is None:
            self.file = open_binary(path, layout.compression)
            self.file.seek(self.after)
            if layout.header and not self.after:
                self.after = len(self.file.readline())
        data = read_records(self.file, layout.quotes)
        self.begin, self.after = self.after, self.after + len(data)
        self.used = 0
        self.rows = self.stage.parse(data, f"{path}, from byte {self.begin}") if data else None
        if not data:
            self.close()
            self.number, self.begin, self.after = self.number + 1, 0, 0

    def restart(self) -> None:
        self.close()
        self.rows = None
        self.number = self.begin = self.after = self.used = 0

    def save(self) -> State:
        open_block = self.rows is not None
        byte = self.begin if open_block else self.after
        return {"file": self.number, "byte": byte, "row": self.used if open_block else 0}

    def restore(self, state: State) -> None:
        self.restart()
        self.number, self.after = state["file"], state["byte"]
        self.skip(state["row"])

    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            file.close()


def read_records(file: BinaryIO, quotes: bool) -> bytes:
    """Whole records, about a mebibyte; nothing at the end of the file.

    A line break between an odd number of quotes belongs to a value.
    """
    data = b""
    while True:
        more = file.read(_BLOCK_BYTES)
        data += more
        if len(more) < _BLOCK_BYTES:
            return data + file.readline() if more else data
        tail = file.readline()
        data += tail
        if not quotes or data.count(b'"') % 2 == 0:
            return data


def _kind(column: Column) -> str:
    return "text" if column.is_text else np.dtype(column.dtype).name


def _table(data: bytes, columns: Sequence[Column], layout: Format) -> Any:
    arrow = needed("pyarrow", "pyarrow", "reading CSV files")
    reader = needed("pyarrow.csv", "pyarrow", "reading CSV files")
    types = {c.name: arrow.string() if c.is_text else getattr(arrow, _kind(c))() for c in columns}
    return reader.read_csv(
        arrow.BufferReader(data),
        read_options=reader.ReadOptions(
            block_size=len(data) + 1, column_names=list(layout.names), use_threads=False
        ),
        parse_options=reader.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if layout.quotes else False,
            newlines_in_values=layout.quotes,
        ),
        convert_options=reader.ConvertOptions(
            column_types=types,
            include_columns=[c.name for c in columns],
            null_values=list(dict.fromkeys(("", layout.missing))),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


def _column(table: Any, column: Column, where: str) -> Array:
    """One column of a block as an array, missing values filled in."""
    values = table.column(column.name)
    if values.null_count:
        if column.default is None:
            place = values.is_null().index(True).as_py()
            raise ArgumentError(
                f"reading {where}",
                received=f"no value of {column.name!r} in row {place} from there",
                expected="a value, since the column has no default",
                fix="give the column a default in column_defaults, such as [0.0]",
            )
        values = values.fill_null(column.default)
    if column.is_text:
        return np.array(values.to_pylist(), STRING)
    array: Array = values.to_numpy()
    return array if array.dtype == column.dtype else array.astype(column.dtype)


# ---- names and dtypes of the columns ----------------------------------------------------------


def records(
    path: str, delimiter: str, quotes: bool, compression: str | None
) -> Iterator[list[str]]:
    """The records of a file as text, for a look at its beginning."""
    with open_binary(path, compression) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        if quotes:
            rows = csv.reader(text, delimiter=delimiter)
        else:
            rows = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        yield from (row for row in rows if row)


def header_of(path: str, delimiter: str, quotes: bool, compression: str | None) -> tuple[str, ...]:
    """The names in the first line of a file. Raises ArgumentError if there are none, or two are
    equal."""
    found = next(records(path, delimiter, quotes, compression), [])
    if found and len(set(found)) == len(found):
        return tuple(found)
    raise ArgumentError(
        f"reading {path}",
        received=f"the first line {delimiter.join(found)!r}",
        expected="different names of columns",
        fix="give column_names and header=False",
    )


def infer_columns(path: str, layout: Format, wanted: Sequence[str], rows: int) -> list[Column]:
    """Dtypes of columns from the first rows: the first of int32, int64, float32 and text that can
    hold all values. Missing values become 0 or ""."""
    seen: dict[str, list[str]] = {name: [] for name in layout.names}
    found = records(path, layout.delimiter, layout.quotes, layout.compression)
    start = 1 if layout.header else 0
    for record in itertools.islice(found, start, start + rows):
        for name, value in zip(layout.names, record, strict=False):
            if value not in ("", layout.missing):
                seen[name].append(value)
    return [_inferred(name, seen[name]) for name in wanted]


def _inferred(name: str, values: list[str]) -> Column:
    for dtype in ("int32", "int64", "float32"):
        if all(_fits(value, dtype) for value in values):
            return Column(name, as_dtype(dtype), 0 if dtype != "float32" else 0.0)
    return Column(name, STRING, "")


def _fits(value: str, dtype: str) -> bool:
    try:
        if "_" in value:  # a digit separator of Python, but not of CSV
            return False
        if dtype == "float32":
            float(value)
            return True
        limits = np.iinfo(dtype)
        return bool(limits.min <= int(value) <= limits.max)
    except ValueError:
        return False


def column_from_default(name: str, default: Any) -> Column:
    """A column by what a user says of it: a dtype if it is required, else a default value; an empty
    array also means required. Raises ArgumentError for another dtype."""
    if default is str or (isinstance(default, str) and default == "string"):
        return Column(name, STRING)
    if isinstance(default, type | np.dtype) or _is_dtype_name(default):
        return Column(name, _numeric(name, as_dtype(default)))
    if isinstance(default, type(STRING)):
        return Column(name, STRING)
    array = to_array(default).reshape(-1)
    value = array[0] if array.size else None
    if isinstance(array.dtype, type(STRING)):
        return Column(name, STRING, value)
    return Column(name, _numeric(name, array.dtype), None if value is None else value.item())


def _is_dtype_name(value: Any) -> bool:
    return isinstance(value, str) and value in _NUMERIC


def _numeric(name: str, dtype: Any) -> Any:
    if np.dtype(dtype).name in _NUMERIC:
        return dtype
    raise ArgumentError(
        "the columns of a CSV file",
        received=f"dtype {dtype} for {name!r}",
        expected=f"one of {', '.join(_NUMERIC)}, or text",
        fix="read it as one of these and convert it in map",
    )


def chosen(names: Sequence[str], wanted: Sequence[Any] | None, subject: str) -> list[str]:
    """Columns by name or number, all of them for None. Raises ArgumentError for an unknown one."""
    result = []
    for item in names if wanted is None else wanted:
        name = names[item] if isinstance(item, int) and 0 <= item < len(names) else item
        if name not in names:
            raise ArgumentError(
                subject, received=f"column {item!r}", expected=f"one of {', '.join(names)}"
            )
        result.append(str(name))
    return result
