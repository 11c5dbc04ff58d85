"""Event files for TensorBoard: scalars, histograms, images and graphs, through `tensorboard`."""

from __future__ import annotations

import os
import struct
import time
import zlib
from typing import Any

import numpy as np

from graphnn.runtime.errors import ArgumentError

_BUCKETS = 30


class MissingTensorBoard(ArgumentError, ImportError):
    """The package tensorboard is not installed."""


def require_tensorboard() -> None:
    """Raise MissingTensorBoard, with the line that installs it, if the package is missing."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingTensorBoard(
            "keras.callbacks.TensorBoard",
            received=f"no package tensorboard ({error})",
            expected="the package, which writes and shows event files",
            fix="pip install 'graphnn[tensorboard]'",
        ) from None


class EventWriter:
    """Writes the event file of one run; the file is made with the first event.

    folder: where to, as `tensorboard --logdir` finds it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._file: Any = None

    def _add(self, step: int, **what: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._file is None:
            os.makedirs(self.folder, exist_ok=True)
            self._file = EventFileWriter(self.folder)
        self._file.add_event(Event(wall_time=time.time(), step=step, **what))

    def _value(self, tag: str, step: int, tensor: Any, metadata: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        value = Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
        self._add(step, summary=Summary(value=[value]))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One number of a curve."""
        from tensorboard.plugins.scalar import metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        about = metadata.create_summary_metadata(display_name="", description="")
        self._value(tag, step, make_tensor_proto(np.float32(value)), about)

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """How the elements of an array are distributed."""
        from tensorboard.plugins.histogram import metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        about = metadata.create_summary_metadata(display_name="", description="")
        self._value(tag, step, make_tensor_proto(buckets(values)), about)

    def image(self, tag: str, pixels: Any, step: int) -> None:
        """A grey picture. pixels: uint8[height, width]."""
        from tensorboard.plugins.image import metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        height, width = pixels.shape
        parts = [str(width).encode(), str(height).encode(), png(pixels)]
        about = metadata.create_summary_metadata("", "")
        self._value(tag, step, make_tensor_proto(np.array(parts, object)), about)

    def graph(self, graph: Any) -> None:
        """The graph of a compiled function. graph: a GraphDef."""
        self._add(0, graph_def=graph.SerializeToString())

    def flush(self) -> None:
        """Write what waits."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Write what waits and close the file; another event would begin a new one."""
        if self._file is not None:
            self._file.close()
        self._file = None


def buckets(values: Any) -> Any:
    """float64[n, 3]: left edge, right edge and number of elements for each of up to 30 buckets.

    Elements that are not finite are left out.

    >>> buckets(np.array([2.0, 2.0]))
    array([[1.5, 2.5, 2. ]])
    """
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return np.zeros((0, 3))
    low, high = float(flat.min()), float(flat.max())
    if low == high:
        return np.array([[low - 0.5, high + 0.5, float(flat.size)]])
    counts, edges = np.histogram(flat, _BUCKETS, (low, high))
    return np.stack([edges[:-1], edges[1:], counts.astype(np.float64)], axis=1)


def grey(weight: Any) -> Any:
    """A weight as uint8[height, width]: from its smallest value, black, to its largest, white.

    Axes before the last are laid out as rows; a vector is one row.
    """
    array = np.asarray(weight, np.float64)
    array = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(1, -1)
    low, high = float(array.min()), float(array.max())
    scale = 255 / (high - low) if high > low else 0.0
    return ((array - low) * scale).astype(np.uint8)


def png(pixels: Any) -> bytes:
    """A PNG file. pixels: uint8[height, width]. Format: W3C Portable Network Graphics, 2003."""
    height, width = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # no filter
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
