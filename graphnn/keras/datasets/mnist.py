"""MNIST: 70,000 handwritten digits of 28 x 28 pixels, downloaded once and checked.

Y. LeCun and C. Cortes hold the copyright of MNIST, a derivative of NIST's databases; it is offered
under CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphnn.keras.datasets.download import DownloadError, cache_folder, get_file

__all__ = ["load_data"]

# The file and the SHA-256 that Keras publishes for it.
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
NAMES = ("x_train", "y_train", "x_test", "y_test")

Bytes = npt.NDArray[np.uint8]


def load_data(
    path: str | os.PathLike[str] | None = None,
) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """MNIST as `(x_train, y_train), (x_test, y_test)`, NumPy arrays.

    Args:
        path: a local .npz file with the arrays x_train, y_train, x_test and y_test. None: the
            file of 11 MB is downloaded on the first call and kept in `$GRAPHNN_HOME/datasets`
            (`~/.graphnn/datasets` if that is not set).

    Returns:
        x_train: uint8 [60000, 28, 28], pixels from 0 (paper) to 255 (ink).
        y_train: uint8 [60000], the digits 0 to 9.
        x_test: uint8 [10000, 28, 28].
        y_test: uint8 [10000].

    Raises:
        DownloadError: the download failed or has a wrong checksum; nothing is left behind.
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is no .npz file, or lacks one of the arrays.

    ```
    (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    ```
    """
    if path is not None:
        return _read(Path(path))
    return _read(_downloaded(cache_folder() / "mnist.npz"))


def _downloaded(target: Path) -> Path:
    try:
        return get_file(URL, SHA256, target)
    except DownloadError as error:
        raise DownloadError(
            f"{error}. Without a network, put mnist.npz (from {URL}) at {target}, "
            "or pass its place: mnist.load_data(path=...)."
        ) from error


def _read(path: Path) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; pass the path of an existing mnist.npz.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file.")
    # Pickled objects could run code when they are read: only plain arrays are accepted.
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in NAMES if name not in arrays]
        if missing:
            raise ValueError(f"{path} has the arrays {arrays.files}, but {missing} are missing.")
        x_train, y_train, x_test, y_test = (arrays[name] for name in NAMES)
    return (x_train, y_train), (x_test, y_test)
