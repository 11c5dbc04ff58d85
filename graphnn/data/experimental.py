"""Datasets of CSV files, and elements on a GPU, under the names that TensorFlow gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn.data import arguments as check
from graphnn.data.calls import Call
from graphnn.data.csv_files import (
    Column,
    CsvRows,
    Format,
    chosen,
    column_from_default,
    header_of,
    infer_columns,
    records,
)
from graphnn.data.dataset import Dataset
from graphnn.data.devices import copy_to_device, prefetch_to_device
from graphnn.data.mapping import Map
from graphnn.data.paths import expand, names
from graphnn.runtime.errors import ArgumentError

AUTOTUNE = check.AUTOTUNE

__all__ = [
    "AUTOTUNE",
    "CsvDataset",
    "copy_to_device",
    "make_csv_dataset",
    "prefetch_to_device",
]


class CsvDataset(Dataset):
    """The rows of CSV files, each a tuple of scalars.

    filenames: a path or several, local or through fsspec. record_defaults: for each column read, a
    dtype (a missing value is an error) or a default value, as in [tf.float32, [0], [""]].
    select_cols: numbers of the columns to read, all by default. header: whether the first line is
    left out. na_value: text that also means a missing value. Raises ArgumentError for a row that
    cannot be read.
    """

    def __init__(
        self,
        filenames: Any,
        record_defaults: Sequence[Any],
        compression_type: str | None = None,
        buffer_size: int | None = None,
        header: bool = False,
        field_delim: str = ",",
        use_quote_delim: bool = True,
        na_value: str = "",
        select_cols: Sequence[int] | None = None,
    ) -> None:
        paths = names(filenames, "CsvDataset")
        numbers = list(range(len(record_defaults))) if select_cols is None else list(select_cols)
        if len(numbers) != len(record_defaults):
            raise ArgumentError(
                "CsvDataset",
                received=f"{len(record_defaults)} record_defaults for {len(numbers)} columns",
                expected="one for each column that is read",
            )
        first = next(records(paths[0], field_delim, use_quote_delim, compression_type), [])
        everything = tuple(f"column_{i}" for i in range(len(first)))
        wanted = chosen(everything, numbers, "CsvDataset")
        columns = [column_from_default(n, d) for n, d in zip(wanted, record_defaults, strict=True)]
        layout = Format(
            everything, field_delim, use_quote_delim, na_value, bool(header), compression_type
        )
        super().__init__(CsvRows(paths, columns, layout, as_dict=False))


def make_csv_dataset(
    file_pattern: Any,
    batch_size: int,
    column_names: Sequence[str] | None = None,
    column_defaults: Sequence[Any] | None = None,
    label_name: str | None = None,
    select_columns: Sequence[Any] | None = None,
    field_delim: str = ",",
    use_quote_delim: bool = True,
    na_value: str = "",
    header: bool = True,
    num_epochs: int | None = None,
    shuffle: bool = True,
    shuffle_buffer_size: int = 10000,
    shuffle_seed: int | None = None,
    prefetch_buffer_size: int | None = None,
    num_parallel_reads: int | None = None,
    sloppy: bool = False,
    num_rows_for_inference: int = 100,
    compression_type: str | None = None,
    ignore_errors: bool = False,
) -> Dataset:
    """Batches of rows of CSV files: dicts of columns, or `(dict, label)` with a label_name.

    file_pattern: paths or patterns, local or through fsspec. column_names: by default those in the
    first line. column_defaults: for each column read, a dtype (required) or a default value; by
    default the dtype (int32, int64, float32, text) is found in the first num_rows_for_inference
    rows and missing values become 0 or "". select_columns: names or numbers. na_value: text that
    also means a missing value. num_epochs: None repeats without end. Rows are shuffled in a buffer
    and batches prefetched by a thread. num_parallel_reads, sloppy and ignore_errors are accepted;
    files are read one after the other. Raises ArgumentError for unknown columns and for rows that
    cannot be read.
    """
    subject = "make_csv_dataset"
    paths = expand(file_pattern, subject)
    if column_names is None:
        column_names = header_of(paths[0], field_delim, use_quote_delim, compression_type)
    layout = Format(
        tuple(column_names), field_delim, use_quote_delim, na_value, header, compression_type
    )
    wanted = chosen(layout.names, select_columns, subject)
    rows = CsvRows(
        paths,
        _columns(paths[0], layout, wanted, column_defaults, num_rows_for_inference),
        layout,
        True,
    )
    dataset = Dataset(rows)
    if shuffle:
        dataset = dataset.shuffle(shuffle_buffer_size, shuffle_seed)
    dataset = dataset.repeat(num_epochs).batch(batch_size, drop_remainder=num_epochs is None)
    if ignore_errors:
        dataset = dataset.ignore_errors()
    if label_name is not None:
        dataset = _labelled(dataset, chosen(wanted, [label_name], subject)[0])
    return dataset.prefetch(prefetch_buffer_size)


def _columns(
    path: str, layout: Format, wanted: list[str], defaults: Sequence[Any] | None, rows: int
) -> list[Column]:
    if defaults is None:
        return infer_columns(path, layout, wanted, rows)
    if len(defaults) != len(wanted):
        raise ArgumentError(
            "make_csv_dataset",
            received=f"{len(defaults)} column_defaults for {len(wanted)} columns",
            expected="one for each column that is read",
        )
    return [column_from_default(n, d) for n, d in zip(wanted, defaults, strict=True)]


def _labelled(dataset: Dataset, label: str) -> Dataset:
    def split(columns: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        return {k: v for k, v in columns.items() if k != label}, columns[label]

    return Dataset(Map(dataset._stage, Call(split, "make_csv_dataset", raw=True)))
