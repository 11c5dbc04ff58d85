"""CSV files as elements: columns of numbers and of text, read block by block with pyarrow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn.compiler.ir.types import as_dtype
from graphnn.data.blocks import Block, count, cut, row
from graphnn.data.elements import STRING, Array, to_array
from graphnn.data.paths import needed, open_binary
from graphnn.data.specs import make_spec
from graphnn.data.stage import UNKNOWN, Cursor, Stage, State
from graphnn.runtime.errors import ArgumentError

_BLOCK_BYTES = 1 << 20
_ARROW = {"int32": "int32", "int64": "int64", "float32": "float32", "float64": "float64"}
_LINES_TO_LOOK_AT = 100


@dataclass(frozen=True)
class Column:
    """One column: its dtype (STRING for text), and what a missing value becomes (None: an error)."""

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
        return self.pack([make_spec((), c.dtype) for c in self.columns])

    def example(self, rows: int) -> Any:
        return self.pack([np.zeros((), c.dtype) for c in self.columns])

    def pack(self, values: Sequence[Any]) -> Any:
        """One value for each column as an element."""
        if not self.as_dict:
            return tuple(values)
        return {c.name: v for c, v in zip(self.columns, values, strict=True)}

    def settings(self) -> str:
        return ", ".join(c.name for c in self.columns)


class _CsvCursor(Cursor):
    """A position is a file and a row in it; going back there reads the file up to the row."""

    def __init__(self, stage: CsvRows) -> None:
        super().__init__()
        self.stage = stage
        self.number = self.at = 0
        self._blocks: Iterator[Block] | None = None
        self._block: Block | None = None
        self._used = 0

    def next(self) -> Any:
        if not self._ready():
            raise StopIteration
        self._used += 1
        self.at += 1
        return row(self._block, self._used - 1)

    def block(self, most: int) -> Block | None:
        if not self._ready():
            return None
        block = cut(self._block, self._used, self._used + most)
        self._used += count(block)
        self.at += count(block)
        return block

    def _ready(self) -> bool:
        """Whether there is an unused row at hand, after reading on if need be."""
        while self._block is None or self._used >= count(self._block):
            if self.number >= len(self.stage.paths):
                return False
            if self._blocks is None:
                self._blocks = read_blocks(self.stage, self.stage.paths[self.number])
            self._block, self._used = next(self._blocks, None), 0
            if self._block is None:
                self.close()
                self.number, self.at = self.number + 1, 0
        return True

    def restart(self) -> None:
        self.close()
        self.number = self.at = 0

    def save(self) -> State:
        return {"file": self.number, "row": self.at}

    def restore(self, state: State) -> None:
        self.restart()
        self.number = state["file"]
        self.skip(state["row"])

    def close(self) -> None:
        blocks, self._blocks, self._block = self._blocks, None, None
        if blocks is not None:
            blocks.close()  # type: ignore[attr-defined]


def read_blocks(stage: CsvRows, path: str) -> Iterator[Block]:
    """Blocks of rows as columns. Raises ArgumentError for a row that cannot be read."""
    arrow = needed("pyarrow", "pyarrow", "reading CSV files")
    with open_binary(path, stage.layout.compression) as file:
        reader = None
        try:
            reader = _open_reader(file, stage.columns, stage.layout)
            start = 0
            for batch in reader or ():
                yield stage.pack([_column(batch, c, path, start) for c in stage.columns])
                start += batch.num_rows
        except arrow.ArrowInvalid as error:
            raise ArgumentError(
                f"reading {path}",
                received=str(error),
                expected=", ".join(f"{c.name}: {_kind(c)}" for c in stage.columns),
                fix="correct the file, or give column_defaults with other dtypes",
            ) from None
        finally:
            if reader is not None:
                reader.close()


def _kind(column: Column) -> str:
    return "text" if column.is_text else str(np.dtype(column.dtype).name)


def _open_reader(file: Any, columns: Sequence[Column], layout: Format) -> Any:
    """pyarrow's streaming reader, or None for an empty file."""
    csv = needed("pyarrow.csv", "pyarrow", "reading CSV files")
    arrow = needed("pyarrow", "pyarrow", "reading CSV files")
    if layout.header:
        file.readline()
    if not (first := file.readline()):
        return None
    types = {c.name: getattr(arrow, "string" if c.is_text else _ARROW[_kind(c)])() for c in columns}
    return csv.open_csv(
        arrow.PythonFile(_Joined(first, file), mode="r"),
        read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=list(layout.names)),
        parse_options=csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if layout.quotes else False,
            newlines_in_values=False,
        ),
        convert_options=csv.ConvertOptions(
            column_types=types,
            include_columns=[c.name for c in columns],
            null_values=list(dict.fromkeys(("", layout.missing))),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


class _Joined(io.RawIOBase):
    """A line that was read already, then the rest of its file."""

    def __init__(self, first: bytes, rest: Any) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._first:
            return self._rest.read(size)  # type: ignore[no-any-return]
        data, self._first = self._first, b""
        return data if size >= 0 else data + self._rest.read()


def _column(batch: Any, column: Column, path: str, start: int) -> Array:
    """One column of a block as an array, missing values filled in."""
    values = batch.column(batch.schema.get_field_index(column.name))
    if values.null_count:
        if column.default is None:
            place = values.is_null().index(True).as_py()
            raise ArgumentError(
                f"reading {path}",
                received=f"no value of {column.name!r} in row {start + place}",
                expected="a value, since the column has no default",
                fix="give the column a default in column_defaults, such as [0.0]",
            )
        values = values.fill_null(column.default)
    if column.is_text:
        return np.array(values.to_pylist(), STRING)
    array: Array = values.to_numpy(zero_copy_only=False)
    return array if array.dtype == column.dtype else array.astype(column.dtype)


# ---- names and dtypes of the columns ----------------------------------------------------------


def header_of(path: str, delimiter: str, quotes: bool, compression: str | None) -> tuple[str, ...]:
    """The names in the first line of a file. Raises ArgumentError if two are equal."""
    with open_binary(path, compression) as file:
        line = file.readline().decode("utf-8-sig")
    found = _split(line, delimiter, quotes)
    if len(set(found)) == len(found) and line.strip():
        return tuple(found)
    raise ArgumentError(
        f"reading {path}",
        received=f"the first line {line.strip()!r}",
        expected="different names of columns",
        fix="give column_names and header=False",
    )


def _split(line: str, delimiter: str, quotes: bool) -> list[str]:
    import csv  # noqa: PLC0415

    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    rows = list(csv.reader([line], delimiter=delimiter, quoting=quoting))
    return rows[0] if rows else []


def infer_columns(path: str, layout: Format, wanted: Sequence[str], rows: int) -> list[Column]:
    """Dtypes of columns from the first rows: the first of int32, int64, float32 and text that can
    hold all values. Missing values become 0 or ""."""
    seen: dict[str, list[str]] = {name: [] for name in layout.names}
    with open_binary(path, layout.compression) as file:
        if layout.header:
            file.readline()
        for _, line in zip(range(rows), file, strict=False):
            values = _split(line.decode(), layout.delimiter, layout.quotes)
            for name, value in zip(layout.names, values, strict=False):
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
        if dtype == "float32":
            float(value)
            return True
        limits = np.iinfo(dtype)
        return bool(limits.min <= int(value) <= limits.max) and "_" not in value
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
    return isinstance(value, str) and value in _ARROW


def _numeric(name: str, dtype: Any) -> Any:
    if np.dtype(dtype).name in _ARROW:
        return dtype
    raise ArgumentError(
        "the columns of a CSV file",
        received=f"dtype {dtype} for {name!r}",
        expected=f"one of {', '.join(_ARROW)}, or text",
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
