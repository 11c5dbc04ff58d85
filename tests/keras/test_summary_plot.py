"""What summary prints and plot_model draws."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from graphnn import keras
from graphnn.keras import layers
from graphnn.runtime.errors import ArgumentError


def branched() -> Any:
    a = keras.Input((4,), name="a")
    d = layers.Dense(4, name="d")
    return keras.Model(a, layers.Add(name="sum")([d(a), d(d(a)) * 2.0]), name="net")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same width whatever the tests run in."""
    monkeypatch.setenv("COLUMNS", "200")


def text_of(model: Any, **options: Any) -> str:
    lines: list[str] = []
    model.summary(print_fn=lines.append, **options)
    return "\n".join(lines)


def test_summary_of_a_chain() -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(2, name="d")(x), name="net")
    assert text_of(model) == "\n".join(
        [
            'Model: "net"',
            "┌────────────────┬──────────────┬─────────┐",
            "│ Layer (type)   │ Output Shape │ Param # │",
            "├────────────────┼──────────────┼─────────┤",
            "│ x (InputLayer) │ (None, 4)    │       0 │",
            "│ d (Dense)      │ (None, 2)    │      10 │",
            "└────────────────┴──────────────┴─────────┘",
            " Total params: 10 (40.00 B)",
            " Trainable params: 10 (40.00 B)",
            " Non-trainable params: 0 (0.00 B)",
        ]
    )


def test_summary_of_a_graph() -> None:
    text = text_of(branched(), show_trainable=True)
    assert "Connected to" in text and "Trainable" in text
    row = next(line for line in text.splitlines() if line.startswith("│ d (Dense)"))
    assert "a[0][0], a[0][0], d[1][0]" in row and "Y" in row
    assert "(Multiply)" in text and "d[0][0], multiply" in text
    assert len({len(line) for line in text.splitlines() if line[0] in "│┌└├"}) == 1


def test_summary_of_parts() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="deep")], name="inner")
    model = keras.Sequential([inner, layers.Dense(2, name="last")])
    assert "deep" not in text_of(model)
    assert "└ deep (Dense)" in text_of(model, expand_nested=True)
    assert "last" not in text_of(model, layer_range=("inner", "inner"))
    with pytest.raises(ArgumentError, match="nothing"):
        text_of(model, layer_range=("nothing", "last"))


def many_inputs() -> Any:
    inputs = [keras.Input((2,), name=f"input_number_{i}") for i in range(12)]
    joined = layers.Concatenate(name="join")(inputs)
    return keras.Model(inputs, layers.Dense(1, name="last")(joined), name="wide")


def cells_of(text: str, column: int) -> str:
    """The content of the cells in a column, all lines in one."""
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    return " ".join(row[column].strip() for row in rows)


def test_summary_wraps_long_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    for given, width in ((None, 108), (80, 80), (50, 50)):
        text = text_of(many_inputs(), line_length=given)
        lines = [line for line in text.splitlines() if line[0] in "│┌├└"]
        assert {len(line) for line in lines} == {width}
        shown = cells_of(text, 3).replace(" ", "")
        assert all(f"input_number_{i}[0][0]" in shown for i in range(12))
        assert text.count("├") == 14, "rules between rows of several lines"


def test_summary_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    widths = {len(line) for line in text_of(many_inputs()).splitlines() if line[0] in "│┌├└"}
    assert widths == {60}


def test_summary_wraps_a_long_name() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="a" * 200)])
    text = text_of(model)
    assert max(map(len, text.splitlines())) == 88
    assert "a" * 200 in cells_of(text, 0).replace(" ", "")


def test_plot_is_a_picture_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "net.svg"
    text = keras.utils.plot_model(branched(), file, show_shapes=True, show_layer_activations=True)
    assert file.read_text(encoding="utf-8") == text
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    boxes = [g for g in root.iter(f"{space}g")]
    titles = [g.find(f"{space}title").text for g in boxes]  # type: ignore[union-attr]
    assert titles[0] == "a" and {"d", "sum"} < set(titles) and len(titles) == 4
    assert len([p for p in root.iter(f"{space}path") if p.get("class") == "edge"]) == 5
    assert "href" not in text and "output: (None, 4)" in text and "activation: linear" in text
    frames = []
    for g in boxes:  # no box covers another
        r = g.find(f"{space}rect")
        x, y, w, h = (float(r.get(k)) for k in ("x", "y", "width", "height"))  # type: ignore[union-attr,arg-type]
        frames.append((x, y, x + w, y + h))
    for i, (x0, y0, x1, y1) in enumerate(frames):
        for u0, v0, u1, v1 in frames[i + 1 :]:
            assert x1 <= u0 or u1 <= x0 or y1 <= v0 or v1 <= y0
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert all(0 <= f[0] and f[2] <= width and f[3] <= height for f in frames)


def test_plot_of_other_models(tmp_path: Path) -> None:
    stack = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Dense(1)])
    assert keras.utils.plot_model(stack, None).count('class="edge"') == 2
    with pytest.raises(ArgumentError, match=r"ends in \.svg"):
        keras.utils.plot_model(stack, tmp_path / "net.png")
    with pytest.raises(ArgumentError, match="no layers"):
        keras.utils.plot_model(keras.Sequential(), None)
