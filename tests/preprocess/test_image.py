"""Resizing and CenterCrop against the numbers of Keras, and sizes that are not known in advance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras.layers import CenterCrop, Rescaling, Resizing
from graphnn.runtime.errors import ArgumentError, ShapeError
from tests.preprocess.conftest import compiled

IMAGE = np.arange(24.0, dtype="float32").reshape(1, 4, 6, 1)


def plane(images: Any) -> Any:
    return np.round(np.asarray(images)[0, ..., 0].astype("float64"), 3).tolist()


@pytest.mark.parametrize(
    ("settings", "rows", "columns"),
    [
        # An image that is the sum of a ramp along each axis: so are the results, whose first
        # column and first row were found by Keras 3 with its TensorFlow backend.
        ({"height": 3, "width": 4}, [1.25, 9.25, 17.25], [1.25, 2.75, 4.25, 5.75]),
        (
            {"height": 6, "width": 9},
            [0, 3, 7, 11, 15, 18],
            [0, 0.5, 1.167, 1.833, 2.5, 3.167, 3.833, 4.5, 5],
        ),
        ({"height": 3, "width": 4, "interpolation": "nearest"}, [0, 12, 18], [0, 2, 3, 5]),
        (
            {"height": 6, "width": 9, "interpolation": "nearest"},
            [0, 6, 6, 12, 18, 18],
            [0, 1, 1, 2, 3, 3, 4, 5, 5],
        ),
        (
            {"height": 3, "width": 4, "interpolation": "area"},
            [1.833, 9.333, 16.833],
            [1.833, 3.167, 4.833, 6.167],
        ),
        ({"height": 2, "width": 3, "antialias": True}, [5, 14.429], [5, 6.786, 8.571]),
        (
            {"height": 2, "width": 3, "antialias": True, "interpolation": "bicubic"},
            [4.065, 15.023],
            [4.065, 6.021, 7.977],
        ),
        (
            {"height": 3, "width": 4, "interpolation": "lanczos3"},
            [0.657, 9.142, 17.628],
            [0.657, 2.305, 3.724, 5.372],
        ),
        (
            {"height": 3, "width": 4, "interpolation": "lanczos5"},
            [0.895, 9.145, 17.395],
            [0.895, 2.548, 3.952, 5.605],
        ),
        (
            {"height": 3, "width": 3, "crop_to_aspect_ratio": True},
            [2.167, 10.167, 18.167],
            [2.167, 3.5, 4.833],
        ),
        (
            {"height": 2, "width": 5, "crop_to_aspect_ratio": True},
            [6.1, 12.1],
            [6.1, 7.3, 8.5, 9.7, 10.9],
        ),
    ],
)
def test_resizing(settings: dict[str, Any], rows: list[float], columns: list[float]) -> None:
    layer = Resizing(**settings)
    expected = np.array(rows)[:, None] + np.array(columns) - rows[0]
    for y in (layer(IMAGE), compiled(layer, IMAGE), compiled(layer, IMAGE, any_size=True)):
        np.testing.assert_allclose(y.numpy()[0, ..., 0], expected, atol=2e-3)
    assert layer.compute_output_shape((None, None, None, 3)) == (None, *expected.shape, 3)


@pytest.mark.parametrize(
    ("size", "interpolation", "expected"),
    [
        ((4, 4), "bilinear", [[-0.688, -0.312, 0.062, 0.438], [4.75, 6.25, 7.75, 9.25],
                              [13.75, 15.25, 16.75, 18.25], [3.812, 4.188, 4.562, 4.938]]),
        ((3, 3), "nearest", [[1, 3, 5], [13, 15, 17], [-1, -1, -1]]),
        ((2, 4), "nearest", [[6, 8, 10, -1], [18, 20, 22, -1]]),
    ],
)  # fmt: skip
def test_padding(size: tuple[int, int], interpolation: str, expected: Any) -> None:
    layer = Resizing(*size, interpolation=interpolation, pad_to_aspect_ratio=True, fill_value=-1.0)
    for y in (layer(IMAGE), compiled(layer, IMAGE), compiled(layer, IMAGE, any_size=True)):
        np.testing.assert_allclose(y.numpy()[0, ..., 0], expected, atol=2e-3)


def test_padding_with_wide_kernels() -> None:
    settings = {"pad_to_aspect_ratio": True, "fill_value": -1.0, "interpolation": "bicubic"}
    square = np.pad(IMAGE, ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=-1.0)
    layer = Resizing(4, 4, **settings)
    expected = Resizing(4, 4, interpolation="bicubic")(square).numpy()
    np.testing.assert_allclose(layer(IMAGE).numpy(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ShapeError, match="known sizes"):
        layer(keras.Input((None, None, 3)))
    assert layer(keras.Input((4, 6, 3))).shape == (None, 4, 4, 3)


def test_integers_are_rounded_and_stay() -> None:
    images = IMAGE.astype("uint8")
    y = Resizing(3, 4)(images)
    assert y.dtype == "uint8"
    assert plane(y) == [[1, 3, 4, 6], [9, 11, 12, 14], [17, 19, 20, 22]]
    edges = np.tile(np.array([0, 255, 0, 255], "uint8").reshape(1, 1, 4, 1), (1, 4, 1, 1))
    sharp = Resizing(8, 8, interpolation="bicubic")(edges)  # overshoots without saturation
    assert sharp.dtype == "uint8" and {0, 255} <= set(np.asarray(sharp).ravel().tolist())
    half = Resizing(3, 4, dtype="mixed_bfloat16")(IMAGE)
    assert half.dtype == "bfloat16"


def test_axes_of_images() -> None:
    one = Resizing(2, 2)(IMAGE[0])
    assert one.shape == (2, 2, 1) and one.numpy()[..., 0].tolist() == [[4, 7], [16, 19]]
    first = Resizing(2, 2, data_format="channels_first")(IMAGE.transpose(0, 3, 1, 2))
    assert first.shape == (1, 1, 2, 2) and first.numpy()[0, 0].tolist() == [[4, 7], [16, 19]]
    same = Resizing(4, 6)(IMAGE)
    np.testing.assert_array_equal(same.numpy(), IMAGE)
    with pytest.raises(ShapeError, match="3 axes"):
        Resizing(2, 2)(IMAGE[0, ..., 0])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2, 3), [[7, 8, 9], [13, 14, 15]]),
        ((3, 3), [[1, 2, 3], [7, 8, 9], [13, 14, 15]]),
        ((4, 6), IMAGE[0, ..., 0].tolist()),
        ((5, 4), [[1, 1.625, 2.375, 3], [5.2, 5.825, 6.575, 7.2], [10, 10.625, 11.375, 12],
                  [14.8, 15.425, 16.175, 16.8], [19, 19.625, 20.375, 21]]),
    ],
)  # fmt: skip
def test_center_crop(size: tuple[int, int], expected: Any) -> None:
    layer = CenterCrop(*size)
    for y in (layer(IMAGE), compiled(layer, IMAGE), compiled(layer, IMAGE, any_size=True)):
        np.testing.assert_allclose(y.numpy()[0, ..., 0], expected, atol=1e-4)
    assert layer(IMAGE.astype("uint8")).dtype == "float32"
    assert layer(IMAGE[0]).shape == (*size, 1)


def test_one_trace_for_images_of_all_sizes() -> None:
    resize, crop = Resizing(8, 8), CenterCrop(6, 6)
    spec = tf.TensorSpec([None, None, None, 3])
    call = tf.function(lambda x: crop(resize(x)), input_signature=[spec])
    rng = np.random.default_rng(0)
    for shape in ((2, 10, 12, 3), (3, 5, 30, 3), (2, 8, 8, 3)):
        x = rng.uniform(0, 255, shape).astype("float32")
        np.testing.assert_allclose(call(x).numpy(), crop(resize(x)).numpy(), rtol=1e-5, atol=1e-4)
    assert call.trace_count == 1


def test_inside_a_model() -> None:
    inputs = keras.Input((None, None, 3))
    x = Rescaling(1.0 / 255)(inputs)
    outputs = CenterCrop(4, 4)(Resizing(6, 6)(x))
    model = keras.Model(inputs, outputs)
    assert model.output_shape == (None, 4, 4, 3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 9, 7, 3)).astype("float32")
    np.testing.assert_allclose(
        model.predict(images, verbose=0), model(images).numpy(), rtol=1e-5, atol=1e-6
    )


def test_rescaling_takes_lists_and_integers() -> None:
    layer = Rescaling([1.0, 2.0], offset=[0, 1])
    assert layer(np.array([[1, 2], [3, 4]])).numpy().tolist() == [[1, 5], [3, 9]]


@pytest.mark.parametrize(
    "layer",
    [
        Resizing(2, 3, "nearest", pad_to_aspect_ratio=True, fill_value=2.0, name="r"),
        CenterCrop(2, 3, data_format="channels_first", dtype="float64"),
    ],
)
def test_config(layer: Any) -> None:
    other = type(layer).from_config(layer.get_config())
    assert other.get_config() == layer.get_config()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resizing(0, 3),
        lambda: Resizing(2, 3, "cubic"),
        lambda: Resizing(2, 3, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True),
        lambda: Resizing(2, 3, fill_mode="reflect"),
        lambda: CenterCrop(2, 3, data_format="nhwc"),
    ],
)
def test_errors(make: Any) -> None:
    with pytest.raises(ArgumentError, match="fix"):
        make()


LARGE = np.random.default_rng(4).random((2, 300, 251, 3)).astype("float32")


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(
    "settings",
    [
        *[{"interpolation": m} for m in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")],
        {"interpolation": "area"},
        {"antialias": True},
        {"crop_to_aspect_ratio": True},
        {"pad_to_aspect_ratio": True, "fill_value": 0.5},
    ],
    ids=lambda s: " ".join(map(str, s.values())),
)
def test_large_images_are_resized_by_a_compiled_program(dtype: str, settings: Any) -> None:
    images = (LARGE * 255).astype("uint8") if dtype == "uint8" else LARGE
    layer = Resizing(90, 401, **settings)
    first, second, other = (np.asarray(layer(x)) for x in (images, images, images[:, :280]))
    np.testing.assert_array_equal(first, second)  # also where the first call is not compiled
    assert first.dtype == images.dtype and first.shape == (2, 90, 401, 3)
    # Small images are resized line by line.
    small = Resizing(90, 401, **settings)
    parts = [small(x) for x in images[:, :280]]
    assert small._compiled.trace_count == 0
    assert layer._compiled.trace_count >= 1
    tolerance = 1 if dtype == "uint8" else 1e-6
    np.testing.assert_allclose(
        np.asarray(other, "float32"), np.asarray(parts, "float32"), atol=tolerance
    )


def test_all_sizes_of_large_images_share_a_trace() -> None:
    layer = Resizing(20, 30)
    for size in range(250, 300, 10):
        layer(np.ones((size, 2 * size, 3), "float32"))
    assert layer._compiled.trace_count <= 2
