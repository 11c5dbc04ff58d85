"""Images in folders, one for each class, read while the model trains.

Run: python examples/images.py. Needs Pillow: pip install 'graphnn[data]'.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from graphnn import keras

CLASSES = "zero one two three four five six seven eight nine".split()


def write_images(folder: Path) -> None:
    """The digits that ship with graphnn as PNG files: folder/seven/0012.png."""
    from PIL import Image

    for part, (images, labels) in zip(
        ("training", "test"), keras.datasets.digits.load_data(), strict=True
    ):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            pixels = (image * 15).astype("uint8")  # 0 to 16 in the data
            path = folder / part / CLASSES[label] / f"{number:04d}.png"
            Image.fromarray(pixels).save(path)


def make_model() -> keras.Sequential:
    """Dense layers on pixels from 0 to 1, compiled."""
    model = keras.Sequential(
        [
            keras.Input(shape=(8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(len(CLASSES)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss, metrics=["accuracy"])
    return model


def main() -> None:
    """Write the folders, read them as datasets, train and test."""
    if not find_spec("PIL"):
        sys.exit("images are read with Pillow: pip install 'graphnn[data]'")
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        read = partial(
            keras.utils.image_dataset_from_directory,
            image_size=(8, 8),
            color_mode="grayscale",
            class_names=CLASSES,
        )
        training, validation = read(
            folder / "training", validation_split=0.2, subset="both", seed=1
        )
        test = read(folder / "test", shuffle=False)
        model = make_model()
        model.fit(training, validation_data=validation, epochs=8, verbose=2)
        _, accuracy = model.evaluate(test, verbose=0)
        answers = model.predict(test, verbose=0).argmax(-1)
    print(f"accuracy on the test images: {accuracy:.1%}")
    for path, answer in list(zip(test.file_paths, answers, strict=True))[::100]:
        print(f"{Path(path).parent.name}/{Path(path).name} looks like {CLASSES[answer]}")


if __name__ == "__main__":
    main()
