"""1,797 handwritten digits of 8 x 8 pixels, shipped with graphnn: no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49. Licence: CC BY 4.0. More in digits.txt.
"""

from importlib.resources import files

import numpy as np
import numpy.typing as npt

__all__ = ["load_data"]

TRAIN = 1437

Bytes = npt.NDArray[np.uint8]


def load_data() -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """The UCI handwritten digits as `(x_train, y_train), (x_test, y_test)`, NumPy arrays.

    The split is fixed: the images are stored in an order shuffled once, the first 1,437 are for
    training and the last 360 for testing.

    Returns:
        x_train: uint8 [1437, 8, 8], pixels from 0 (paper) to 16 (ink).
        y_train: uint8 [1437], the digits 0 to 9.
        x_test: uint8 [360, 8, 8].
        y_test: uint8 [360].

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49; licence CC BY 4.0.

    >>> from graphnn.keras.datasets import digits
    >>> (x_train, y_train), (x_test, y_test) = digits.load_data()
    >>> x_train.shape, y_train.shape, x_test.shape, y_test.shape
    ((1437, 8, 8), (1437,), (360, 8, 8), (360,))
    >>> int(x_train.min()), int(x_train.max()), str(x_train.dtype)
    (0, 16, 'uint8')
    """
    with files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    # Copies: a change of one part must not show in the other, nor keep it in memory.
    return (
        (images[:TRAIN].copy(), labels[:TRAIN].copy()),
        (images[TRAIN:].copy(), labels[TRAIN:].copy()),
    )
