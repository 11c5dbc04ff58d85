"""Text lines and CSV files, local, packed, and through fsspec."""

import gzip
from pathlib import Path

import numpy as np
import pytest

import graphnn as tf
from graphnn.data import Dataset, TextLineDataset, csv_files, experimental
from graphnn.runtime.errors import ArgumentError
from tests.data.conftest import plain, values

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")

IRIS = 'name,petal,count,note\niris,1.5,1,"a, b"\nrose,,2,"two\nlines"\nlily,3.25,,\n'


@pytest.fixture
def lines(tmp_path: Path) -> list[Path]:
    (tmp_path / "a.txt").write_bytes("one\r\ntwo ä\n\nfour".encode())
    (tmp_path / "b.txt").write_bytes(b"five\nsix\n")
    return [tmp_path / "a.txt", tmp_path / "b.txt"]


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    path = tmp_path / "iris.csv"
    path.write_text(IRIS, encoding="utf-8", newline="")
    return path


def test_lines_of_files(lines: list[Path]) -> None:
    dataset = TextLineDataset(lines)
    assert isinstance(dataset, Dataset)
    assert dataset.element_spec == tf.TensorSpec((), tf.string)
    assert values(dataset) == ["one", "two ä", "", "four", "five", "six"]
    assert values(TextLineDataset(str(lines[0])).filter(lambda s: s != "").batch(2)) == [
        ["one", "two ä"],
        ["four"],
    ]
    many = TextLineDataset(lines, num_parallel_reads=2)
    assert values(many) == ["one", "five", "two ä", "six", "", "four"]
    listed = Dataset.list_files(str(lines[0].parent / "*.txt"), shuffle=False)
    assert values(TextLineDataset(listed)) == values(dataset)
    with pytest.raises(ArgumentError, match="no file matches"):
        Dataset.list_files(str(lines[0].parent / "*.none"))


def test_lines_go_on_from_a_position(lines: list[Path]) -> None:
    whole = values(TextLineDataset(lines).repeat(2))
    iterator = iter(TextLineDataset(lines).repeat(2))
    for place in range(len(whole) + 1):
        restored = TextLineDataset(lines).repeat(2).iterator(iterator.state())
        assert [plain(e) for e in restored] == whole[place:]
        next(iterator, None)


def test_packed_and_remote_files(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a\nb\n"))
    assert values(TextLineDataset(tmp_path / "x.gz", "GZIP")) == ["a", "b"]
    with fsspec.open("memory://texts/one.txt", "wb") as file:
        file.write(b"far\naway\n")
    assert values(TextLineDataset("memory://texts/one.txt")) == ["far", "away"]
    assert values(Dataset.list_files("memory://texts/*.txt")) == ["memory://texts/one.txt"] or (
        values(Dataset.list_files("memory://texts/*.txt")) == ["memory:///texts/one.txt"]
    )
    with pytest.raises(ArgumentError, match="GZIP"):
        list(TextLineDataset(tmp_path / "x.gz", "RAR"))


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"ok\n\xff\n")
    with pytest.raises(ArgumentError, match=r"line 2 of .*bad\.txt"):
        list(TextLineDataset(tmp_path / "bad.txt"))
    with pytest.raises(FileNotFoundError):
        list(TextLineDataset(tmp_path / "none.txt"))


def test_csv_columns_and_their_dtypes(iris: Path) -> None:
    dataset = experimental.make_csv_dataset(iris, 2, shuffle=False, num_epochs=1)
    first, last = list(dataset)
    assert {k: (v.dtype.name if k in ("petal", "count") else "text") for k, v in first.items()} == {
        "name": "text",
        "petal": "float32",
        "count": "int32",
        "note": "text",
    }
    assert plain(first) == {
        "name": ["iris", "rose"],
        "petal": [1.5, 0.0],
        "count": [1, 2],
        "note": ["a, b", "two\nlines"],
    }
    assert plain(last) == {"name": ["lily"], "petal": [3.25], "count": [0], "note": [""]}
    assert dataset.element_spec["petal"] == tf.TensorSpec((None,))


def test_csv_label_selection_and_defaults(iris: Path) -> None:
    features, label = next(
        iter(
            experimental.make_csv_dataset(
                str(iris),
                3,
                column_defaults=["?", -1.0, tf.float32],
                select_columns=["name", 1, "count"],
                label_name="petal",
                num_epochs=1,
                shuffle=False,
                na_value="rose",
            ).ignore_errors()
        ),
        (None, None),
    )
    assert features is None  # the count of the last row is missing, and required
    with pytest.raises(ArgumentError, match="no value of 'count' in row 2"):
        next(iter(experimental.make_csv_dataset(iris, 3, column_defaults=["", 0.0, tf.int32, ""])))
    features, label = next(
        iter(
            experimental.make_csv_dataset(
                iris,
                3,
                column_defaults=["?", -1.0],
                select_columns=["name", "petal"],
                label_name="petal",
                num_epochs=1,
                shuffle=False,
                na_value="rose",
            )
        )
    )
    assert plain(features) == {"name": ["iris", "?", "lily"]}
    assert label.numpy().tolist() == [1.5, -1.0, 3.25]


def test_csv_shuffles_rows_whole_and_repeats(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("a,b\n" + "".join(f"{i},x{i}\n" for i in range(100)))
    make = lambda epochs: experimental.make_csv_dataset(  # noqa: E731
        path, 8, shuffle_buffer_size=16, shuffle_seed=1, num_epochs=epochs
    )
    rows = [(a, b) for e in make(1) for a, b in zip(*map(plain, e.values()), strict=True)]
    assert sorted(a for a, _ in rows) == list(range(100))
    assert all(b == f"x{a}" for a, b in rows)
    assert [a for a, _ in rows] != list(range(100))
    endless = [plain(e["a"]) for e in make(None).take(30)]
    assert all(len(e) == 8 for e in endless)
    iterator = iter(make(2))
    for _ in range(5):
        next(iterator)
    state = iterator.state()
    assert [plain(e) for e in make(2).iterator(state)] == [plain(e) for e in iterator]


def test_csv_in_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    path, second = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("n,text\n" + "".join(f'{i},"line {i}\nnext"\n' for i in range(50)), newline="")
    second.write_text("n,text\n\n50,end")
    pattern = str(tmp_path / "*.csv")
    make = lambda: experimental.make_csv_dataset(pattern, 7, num_epochs=1, shuffle=False)  # noqa: E731
    numbers = [n for e in make() for n in plain(e["n"])]
    assert numbers == list(range(51))
    assert plain(next(iter(make()))["text"])[3] == "line 3\nnext"
    iterator = iter(make())
    for place in range(8):
        restored = [n for e in make().iterator(iterator.state()) for n in plain(e["n"])]
        assert restored == numbers[place * 7 :]
        next(iterator)
    iterator.close()


def test_csv_dataset_of_tuples(iris: Path) -> None:
    dataset = experimental.CsvDataset(str(iris), [tf.float32, [7]], header=True, select_cols=[1, 2])
    with pytest.raises(ArgumentError, match="column_1"):
        list(dataset)
    dataset = experimental.CsvDataset(iris, [0.5, [7]], header=True, select_cols=[1, 2])
    assert values(dataset) == [(1.5, 1), (0.5, 2), (3.25, 7)]
    assert dataset.element_spec == (tf.TensorSpec(()), tf.TensorSpec((), "int32"))
    assert [x.dtype.name for x in next(iter(dataset.batch(2)))] == ["float32", "int32"]


def test_csv_without_a_header_and_with_another_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("1;2\n3;4\n")
    dataset = experimental.make_csv_dataset(
        path, 2, ["a", "b"], header=False, field_delim=";", num_epochs=1, shuffle=False
    )
    assert values(dataset) == [{"a": [1, 3], "b": [2, 4]}]
    assert values(experimental.CsvDataset(path, [0, 0], field_delim=";")) == [(1, 2), (3, 4)]


def test_csv_through_fsspec_and_packed(tmp_path: Path) -> None:
    with fsspec.open("memory://tables/t.csv", "wb") as file:
        file.write(b"a\n1\n2\n")
    far = experimental.make_csv_dataset("memory://tables/*.csv", 5, num_epochs=1, shuffle=False)
    assert values(far) == [{"a": [1, 2]}]
    with fsspec.open("memory://tables/t.gz", "wb") as file:
        file.write(gzip.compress(b"a\n1\n2\n"))
    packed = experimental.CsvDataset("memory://tables/t.gz", [0], "GZIP", header=True)
    assert values(packed) == [(1,), (2,)]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a\n1\n2\n"))
    near = experimental.make_csv_dataset(
        tmp_path / "t.csv.gz", 5, num_epochs=1, shuffle=False, compression_type="GZIP"
    )
    assert values(near) == [{"a": [1, 2]}]


def test_csv_mistakes(iris: Path, tmp_path: Path) -> None:
    make = experimental.make_csv_dataset
    with pytest.raises(ArgumentError, match="one of name, petal"):
        make(iris, 2, label_name="colour")
    with pytest.raises(ArgumentError, match="one for each column"):
        make(iris, 2, column_defaults=[0.0])
    with pytest.raises(ArgumentError, match="float32, float64, or text"):
        make(iris, 2, column_defaults=["", tf.float16, 0, ""])
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(ArgumentError, match="different names"):
        make(tmp_path / "twice.csv", 2)
    (tmp_path / "broken.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ArgumentError, match="Expected 2 columns, got 1") as caught:
        list(make(tmp_path / "broken.csv", 2, num_epochs=1))
    assert "at test_text_csv.py" in str(caught.value)  # though a thread has found it
    (tmp_path / "word.csv").write_text("a\n1\nx\n")
    with pytest.raises(ArgumentError, match="a: int32"):
        list(make(tmp_path / "word.csv", 2, num_epochs=1, num_rows_for_inference=1))
    (tmp_path / "empty.csv").write_text("a,b\n")
    assert values(make(tmp_path / "empty.csv", 2)) == []


def test_large_integers_and_float_text_are_found(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(f"a,b,c,d\n{2**40},1e3,NaN,1_0\n1,-2,inf,2\n")
    (batch,) = list(experimental.make_csv_dataset(path, 2, num_epochs=1, shuffle=False))
    assert [batch[k].dtype.name for k in "abc"] == ["int64", "float32", "float32"]
    assert np.isnan(batch["c"].numpy()[0])
    assert plain(batch["d"]) == ["1_0", "2"]


def test_element_spec_of_a_map_uses_a_real_line(lines: list[Path]) -> None:
    words = TextLineDataset(lines).map(lambda s: len(str(s).split()[0]))
    assert words.element_spec == tf.TensorSpec((), "int32")
