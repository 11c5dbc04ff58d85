"""Folders of images and texts with a folder for each class."""

from pathlib import Path

import numpy as np
import pytest

import graphnn as tf
from graphnn.data.directories import image_dataset_from_directory, text_dataset_from_directory
from graphnn.runtime.errors import ArgumentError
from tests.data.conftest import values

Image = pytest.importorskip("PIL.Image")
fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures of one color each: cats red, dogs blue; the number is the green value."""
    for label, name in enumerate(["cats", "dogs"]):
        (tmp_path / name).mkdir()
        for i in range(3):
            color = (200 * (1 - label), 10 * i, 200 * label)
            ending = ("png", "jpg", "bmp")[i] if label else "png"
            Image.new("RGB", (20, 10), color).save(tmp_path / name / f"{i}.{ending}")
    (tmp_path / "cats" / "notes.txt").write_text("no picture")
    (tmp_path / "cats" / ".hidden.png").write_text("no picture")
    return tmp_path


def test_images_with_labels_from_folders(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = image_dataset_from_directory(pictures, image_size=(4, 6), batch_size=4, seed=1)
    assert capsys.readouterr().out == "Found 6 files belonging to 2 classes.\n"
    assert dataset.class_names == ["cats", "dogs"]
    assert len(dataset.file_paths) == 6
    assert len(dataset) == 2
    assert dataset.element_spec == (
        tf.TensorSpec((None, 4, 6, 3)),
        tf.TensorSpec((None,), "int32"),
    )
    for images, labels in dataset:
        assert images.dtype == tf.float32
        red, blue = images.numpy()[:, 0, 0, 0], images.numpy()[:, 0, 0, 2]
        assert np.allclose(red, 200 * (1 - labels.numpy()), atol=3)
        assert np.allclose(blue, 200 * labels.numpy(), atol=3)


def test_order_is_fixed_without_shuffle_and_by_the_seed_with_it(pictures: Path) -> None:
    def labels(**settings: object) -> list[int]:
        made = image_dataset_from_directory(
            pictures, image_size=(2, 2), verbose=False, batch_size=None, **settings
        )
        return [int(y) for _, y in made]

    assert labels(shuffle=False) == [0, 0, 0, 1, 1, 1]
    assert labels(seed=3) == labels(seed=3)
    assert len({tuple(labels(seed=s)) for s in range(5)}) > 1
    assert labels(shuffle=False, class_names=["dogs", "cats"]) == [0, 0, 0, 1, 1, 1]


def test_label_modes(pictures: Path) -> None:
    def first(**settings: object) -> object:
        made = image_dataset_from_directory(
            pictures, image_size=(2, 2), verbose=False, shuffle=False, batch_size=6, **settings
        )
        return next(iter(made))

    assert first(label_mode="categorical")[1].numpy().tolist() == [[1, 0]] * 3 + [[0, 1]] * 3
    assert first(label_mode="binary")[1].numpy().tolist() == [[0.0]] * 3 + [[1.0]] * 3
    assert first(label_mode=None).shape == (6, 2, 2, 3)
    assert first(labels=None).shape == (6, 2, 2, 3)
    assert first(labels=[5, 4, 3, 2, 1, 0])[1].numpy().tolist() == [5, 4, 3, 2, 1, 0]
    assert first(color_mode="grayscale")[0].shape == (6, 2, 2, 1)
    assert first(color_mode="rgba")[0].numpy()[0, 0, 0, 3] == 255
    assert first(data_format="channels_first")[0].shape == (6, 3, 2, 2)


def test_subsets_are_disjoint_and_complete(pictures: Path) -> None:
    def part(subset: str) -> object:
        return image_dataset_from_directory(
            pictures, validation_split=0.34, subset=subset, seed=5, verbose=False
        )

    training, validation = part("training"), part("validation")
    assert (len(training.file_paths), len(validation.file_paths)) == (4, 2)
    assert not set(training.file_paths) & set(validation.file_paths)
    both = part("both")
    assert [d.file_paths for d in both] == [training.file_paths, validation.file_paths]


def test_crop_and_pad_keep_the_proportions(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 250  # the middle third is white
    Image.fromarray(pixels).save(tmp_path / "wide.png")

    def read(**settings: object) -> np.ndarray:
        made = image_dataset_from_directory(
            tmp_path, None, image_size=(6, 6), verbose=False, interpolation="nearest", **settings
        )
        return next(iter(made)).numpy()[0, :, :, 0]

    assert np.all(read(crop_to_aspect_ratio=True) == 250)
    padded = read(pad_to_aspect_ratio=True)
    assert np.all(padded[:2] == 0) and np.all(padded[4:] == 0)
    assert np.all(padded[2:4, 2:4] == 250)
    assert np.all(read()[:, 2:4] == 250) and np.all(read()[:, :2] == 0)


def test_interpolation_is_not_rounded(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / "two.png")
    made = image_dataset_from_directory(
        tmp_path, None, image_size=(1, 4), color_mode="grayscale", verbose=False
    )
    assert np.allclose(next(iter(made)).numpy().ravel(), [0, 0.25, 0.75, 1])


def test_texts_with_labels_from_folders(tmp_path: Path) -> None:
    for name, text in (("bad/a.txt", "not nice"), ("good/b.txt", "schön"), ("good/c/d.txt", "ja")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    made = text_dataset_from_directory(tmp_path, shuffle=False, verbose=False, batch_size=8)
    assert values(made) == [(["not nice", "schön", "ja"], [0, 1, 1])]
    short = text_dataset_from_directory(
        tmp_path, labels=None, max_length=3, shuffle=False, verbose=False
    )
    assert values(short) == [["not", "sch", "ja"]]


def test_folders_through_fsspec() -> None:
    for name, text in (("a/1.txt", "one"), ("b/2.txt", "two")):
        with fsspec.open(f"memory://corpus/{name}", "wb") as file:
            file.write(text.encode())
    made = text_dataset_from_directory("memory://corpus", shuffle=False, verbose=False)
    assert made.class_names == ["a", "b"]
    assert values(made) == [(["one", "two"], [0, 1])]


def test_mistakes_are_explained(pictures: Path) -> None:
    read = image_dataset_from_directory
    for settings, text in (
        ({"color_mode": "cmyk"}, "grayscale"),
        ({"label_mode": "float"}, "label_mode"),
        ({"interpolation": "magic"}, "bilinear"),
        ({"class_names": ["cats"]}, "the names of its folders"),
        ({"validation_split": 0.5}, "both or none"),
        ({"validation_split": 1.5, "subset": "both"}, "between 0 and 1"),
        ({"validation_split": 0.5, "subset": "training"}, "seed"),
        ({"labels": [1, 2]}, "one for each file"),
    ):
        with pytest.raises(ArgumentError, match=text):
            read(pictures, **settings)
    with pytest.raises(ArgumentError, match="an existing folder"):
        read(pictures / "none")
    (pictures / "empty").mkdir()
    with pytest.raises(ArgumentError, match="no file that can be used"):
        read(pictures / "empty")
    with pytest.raises(ArgumentError, match="two classes"):
        read(pictures, label_mode="binary")


def test_a_damaged_image_is_named(pictures: Path) -> None:
    (pictures / "dogs" / "1.jpg").write_bytes(b"no image")
    made = image_dataset_from_directory(pictures, shuffle=False, verbose=False)
    with pytest.raises(ArgumentError, match=r"dogs.1\.jpg") as caught:
        list(made)
    assert "element 4" in caught.value.__notes__[0]
