"""Folders of images and of texts as labelled datasets: a folder for each class."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn.data.calls import Call
from graphnn.data.dataset import Dataset
from graphnn.data.elements import STRING, Array
from graphnn.data.mapping import Map
from graphnn.data.paths import files, folders, join, needed, open_binary
from graphnn.data.seeds import fresh_seed
from graphnn.data.threads import cores
from graphnn.runtime.errors import ArgumentError

IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_CHANNELS = {"grayscale": ("L", 1), "rgb": ("RGB", 3), "rgba": ("RGBA", 4)}
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos3", "area")
_PIL_FILTERS = {
    "nearest": "NEAREST",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "lanczos3": "LANCZOS",
    "area": "BOX",
}


@dataclass(frozen=True)
class Labelled:
    """The files of a folder with their labels (None without) and the names of the classes."""

    paths: list[str]
    labels: list[int] | None
    class_names: list[str]


class DirectoryDataset(Dataset):
    """A dataset of the files of a folder.

    class_names: names of the classes in the order of their labels. file_paths: the files, in the
    order before shuffling.
    """

    def __init__(self, dataset: Dataset, found: Labelled) -> None:
        super().__init__(dataset._stage)
        self.class_names, self.file_paths = found.class_names, found.paths


def text_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    verbose: bool = True,
) -> Any:
    """Batches of (text, label) from the .txt files of a folder that has a folder for each class.

    directory: local or through fsspec. labels: "inferred" from the folders, None for texts alone,
    or one for each file in the sorted order of paths. label_mode: "int" (int32), "categorical"
    (float32 one-hot), "binary" (float32 0 or 1), or None. max_length: characters kept of a text.
    validation_split with subset "training", "validation" or "both" (a pair): the share of files,
    chosen by the seed, that is kept for validation. batch_size None gives single texts. Texts are
    strings of `StringDType`. Raises ArgumentError for settings that do not fit the folder.
    """

    def read(path: Array, *label: Array) -> Any:
        with open_binary(str(path)) as file:
            text = file.read().decode()
        value = np.array(text if max_length is None else text[:max_length], STRING)
        return (value, *label) if label else value

    plan = _Plan(label_mode, batch_size, shuffle, seed, validation_split, subset)
    found = index_directory(directory, labels, label_mode, class_names, (".txt",), follow_links)
    return plan.datasets(found, Call(read, "text_dataset_from_directory", raw=True), verbose)


def image_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    verbose: bool = True,
) -> Any:
    """Batches of (image, label) from the image files of a folder that has a folder for each class.

    Images are float32 [height, width, channels] with values from 0 to 255 ([channels, height,
    width] with data_format "channels_first"), decoded by Pillow in parallel threads; of an
    animation the first picture. color_mode: "rgb", "rgba" or "grayscale". image_size: (height,
    width) to resize to with the interpolation "nearest", "bilinear", "bicubic", "lanczos3" or
    "area". crop_to_aspect_ratio cuts the middle out and pad_to_aspect_ratio adds black, instead of
    distorting. Other arguments as in `text_dataset_from_directory`. Raises ArgumentError for
    settings that do not fit the folder, and for a file that is no image.
    """
    _one_of("color_mode", color_mode, tuple(_CHANNELS))
    _one_of("interpolation", interpolation, _FILTERS)
    _one_of("data_format", data_format, ("channels_last", "channels_first", None))
    fit = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch"
    reader = ImageReader(
        (int(image_size[0]), int(image_size[1])), color_mode, interpolation, fit, data_format
    )

    def read(path: Array, *label: Array) -> Any:
        image = reader.read(str(path))
        return (image, *label) if label else image

    plan = _Plan(label_mode, batch_size, shuffle, seed, validation_split, subset)
    found = index_directory(directory, labels, label_mode, class_names, IMAGE_ENDINGS, follow_links)
    return plan.datasets(found, Call(read, "image_dataset_from_directory", raw=True), verbose)


# ---- which files, which labels ----------------------------------------------------------------


def index_directory(
    directory: Any,
    labels: Any,
    label_mode: str | None,
    class_names: Sequence[str] | None,
    endings: tuple[str, ...],
    follow_links: bool,
) -> Labelled:
    """The files of a folder in sorted order, with their labels."""
    _one_of("label_mode", label_mode, ("int", "categorical", "binary", None))
    root = str(directory)
    inside = folders(root)
    if labels is None or label_mode is None:
        return _checked(Labelled(files(root, endings, follow_links), None, []), root, endings)
    if isinstance(labels, str):
        _one_of("labels", labels, ("inferred",))
        if class_names is not None and sorted(class_names) != inside:
            raise ArgumentError(
                f"reading the folder {root}",
                received=f"class_names {list(class_names)}",
                expected=f"the names of its folders: {inside}",
            )
        names = inside if class_names is None else list(class_names)
        found = [files(join(root, name), endings, follow_links) for name in names]
        numbers = [label for label, part in enumerate(found) for _ in part]
        paths = [path for part in found for path in part]
        return _checked(_binary(Labelled(paths, numbers, names), label_mode), root, endings)
    paths, numbers = files(root, endings, follow_links), [int(label) for label in labels]
    if len(numbers) != len(paths):
        raise ArgumentError(
            f"reading the folder {root}",
            received=f"{len(numbers)} labels for {len(paths)} files",
            expected="one for each file, in the sorted order of paths",
        )
    names = [str(label) for label in sorted(set(numbers))]
    return _checked(_binary(Labelled(paths, numbers, names), label_mode), root, endings)


def _checked(found: Labelled, root: str, endings: tuple[str, ...]) -> Labelled:
    if found.paths:
        return found
    raise ArgumentError(
        f"reading the folder {root}",
        received="no file that can be used",
        expected=f"files ending in {', '.join(endings)}, in one folder for each class",
        fix="check the path, or pass labels=None for files without classes",
    )


def _binary(found: Labelled, label_mode: str | None) -> Labelled:
    if label_mode == "binary" and len(found.class_names) != 2:
        raise ArgumentError(
            "label_mode='binary'",
            received=f"the classes {found.class_names}",
            expected="two classes",
            fix="use label_mode='int' or 'categorical'",
        )
    return found


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ArgumentError(
            "reading a folder",
            received=f"{name}={value!r}",
            expected="one of " + ", ".join(map(repr, choices)),
        )


@dataclass(frozen=True)
class _Plan:
    """From files to batches: which part of them, in which order, with which form of label."""

    label_mode: str | None
    batch_size: int | None
    shuffle: bool
    seed: int | None
    split: float | None
    subset: str | None

    def __post_init__(self) -> None:
        _one_of("subset", self.subset, (None, "training", "validation", "both"))
        if (self.split is None) != (self.subset is None):
            raise ArgumentError(
                "reading a folder",
                received=f"validation_split={self.split!r} and subset={self.subset!r}",
                expected="both or none of them",
                fix="give e.g. validation_split=0.2, subset='both', seed=1",
            )
        if self.split is not None and not 0 < self.split < 1:
            raise ArgumentError(
                "reading a folder",
                received=f"validation_split={self.split}",
                expected="a share between 0 and 1",
            )
        if self.split is not None and self.shuffle and self.seed is None and self.subset != "both":
            raise ArgumentError(
                "reading a folder",
                received="validation_split and shuffle without a seed",
                expected="a seed, so that both subsets together are all files",
                fix="give the same seed for both subsets, or use subset='both'",
            )

    def datasets(self, found: Labelled, read: Call, verbose: bool) -> Any:
        """One dataset, or two for subset="both"."""
        if verbose:
            classes = f" belonging to {len(found.class_names)} classes" if found.labels else ""
            sys.stdout.write(f"Found {len(found.paths)} files{classes}.\n")
        seed = fresh_seed() if self.seed is None else int(self.seed)
        training, validation = self._parts(found, seed)
        parts = {"training": [training], "validation": [validation], None: [training]}
        both = parts.get(self.subset, [training, validation])
        made = [self._dataset(part, read, seed) for part in both]
        if verbose and self.subset is not None:
            names = ("training", "validation") if self.subset == "both" else (self.subset,)
            for name, part in zip(names, both, strict=True):
                sys.stdout.write(f"Using {len(part.paths)} files for {name}.\n")
        return made[0] if len(made) == 1 else tuple(made)

    def _parts(self, found: Labelled, seed: int) -> tuple[Labelled, Labelled]:
        order = np.arange(len(found.paths))
        if self.shuffle:
            np.random.default_rng(seed & (2**63 - 1)).shuffle(order)
        cut = len(order) - int((self.split or 0.0) * len(order))
        return _chosen(found, order[:cut]), _chosen(found, order[cut:])

    def _dataset(self, part: Labelled, read: Call, seed: int) -> DirectoryDataset:
        columns: Any = np.array(part.paths, STRING)
        if part.labels is not None:
            columns = (columns, self._labels(part))
        dataset = Dataset.from_tensor_slices(columns)
        if self.shuffle:
            dataset = dataset.shuffle(max(1, len(part.paths)), seed)
        dataset = Dataset(Map(dataset._stage, read, cores()))
        if self.batch_size is not None:
            dataset = dataset.batch(self.batch_size)
        return DirectoryDataset(dataset.prefetch(), part)

    def _labels(self, part: Labelled) -> Array:
        numbers = np.array(part.labels, np.int32)
        if self.label_mode == "int":
            return numbers
        if self.label_mode == "binary":
            return numbers.astype(np.float32)[:, None]
        return np.eye(len(part.class_names), dtype=np.float32)[numbers]


def _chosen(found: Labelled, order: Array) -> Labelled:
    paths = [found.paths[i] for i in order]
    labels = None if found.labels is None else [found.labels[i] for i in order]
    return Labelled(paths, labels, found.class_names)


# ---- images -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageReader:
    """Decodes image files to float32 arrays of one size.

    size: (height, width). fit: "stretch", "crop" or "pad".
    """

    size: tuple[int, int]
    color_mode: str
    interpolation: str
    fit: str
    data_format: str | None

    def read(self, path: str) -> Array:
        """One image, values from 0 to 255. Raises ArgumentError for a file that is none."""
        pil = needed("PIL.Image", "pillow", "reading images")
        mode, channels = _CHANNELS[self.color_mode]
        with open_binary(path) as file:
            try:
                image = pil.open(file).convert(mode)
            except (pil.UnidentifiedImageError, OSError, pil.DecompressionBombError) as error:
                raise ArgumentError(
                    f"reading {path}",
                    received=f"{type(error).__name__}: {error}",
                    expected="an image that Pillow can decode",
                    fix="remove or repair the file",
                ) from None
        pixels = self._resized(pil, image, channels)
        if self.data_format == "channels_first":
            pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return pixels

    def _resized(self, pil: Any, image: Any, channels: int) -> Array:
        """Each channel is resized as float32, so that nothing is rounded in between."""
        height, width = self.size
        box = self._box(image)
        method = getattr(pil.Resampling, _PIL_FILTERS[self.interpolation])
        left, top, right, bottom = box
        inner = (width, height)
        if self.fit == "pad":
            scale = min(width / image.width, height / image.height)
            inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        parts = image.split() if channels > 1 else (image,)
        planes = [
            np.asarray(p.convert("F").resize(inner, method, box=(left, top, right, bottom)))
            for p in parts
        ]
        pixels = np.stack(planes, axis=-1).astype(np.float32)
        if inner == (width, height):
            return pixels
        out = np.zeros((height, width, channels), np.float32)
        y, x = (height - inner[1]) // 2, (width - inner[0]) // 2
        out[y : y + inner[1], x : x + inner[0]] = pixels
        return out

    def _box(self, image: Any) -> tuple[float, float, float, float]:
        """The part of the image that is used: all of it, or its middle in the wanted shape."""
        if self.fit != "crop":
            return 0.0, 0.0, float(image.width), float(image.height)
        height, width = self.size
        scale = min(image.width / width, image.height / height)
        wide, high = width * scale, height * scale
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        return left, top, left + wide, top + high
