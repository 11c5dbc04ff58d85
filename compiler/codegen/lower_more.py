"""Lowerings of groups that are not rows and columns: inner-axis reductions, scans, scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn.compiler.codegen.loops import (
    PART,
    Combine,
    Loop,
    Reset,
    Statement,
    Store,
    Update,
)
from graphnn.compiler.codegen.lower import Builder, Lowered, loop_monoid
from graphnn.compiler.codegen.scalar import Accumulator, Buffer, Scalar, compute_dtype, is_affine
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import Dynamic, Var, atom, atoms, product, ravel, unravel
from graphnn.compiler.ops.base import Load, neutral, normalize_axis
from graphnn.compiler.passes.fuse import Group, Partition


def lower_middle(partition: Partition, group: Group, parts: int) -> Lowered:
    """A reduction whose axes are neither the first nor the last ones."""
    builder = Builder(partition, group)
    (node,) = group.nodes
    (source,) = node.inputs
    op: Any = node.op
    gone = {normalize_axis(a, source.tensor.ndim, op.name) for a in op.axes}
    wide = [k for k, s in enumerate(source.shape) if s != 1]
    tail = len(wide)
    while tail and wide[tail - 1] not in gone:
        tail -= 1
    outer = [k for k in wide[:tail] if k not in gone]
    inner = wide[tail:]
    if inner:
        return _columns(builder, node, outer, sorted(gone & set(wide)), inner)
    return _totals(builder, node, outer, sorted(gone & set(wide)))


def _source_value(builder: Builder, node: Node, places: dict[int, Any]) -> Scalar:
    (source,) = node.inputs
    index = [places.get(k, 0) for k in range(source.tensor.ndim)]
    value = builder.value(source, ravel(index, source.shape))
    return builder.emit.cast(value, compute_dtype(node.dtype))


def _nest(vars: Sequence[Var], body: Sequence[Statement], independent: bool = True) -> Loop:
    """Loops around a body, the first variable outermost."""
    statement = Loop(vars[-1], tuple(body), independent)
    for var in reversed(vars[:-1]):
        statement = Loop(var, (statement,))
    return statement


def _places(axes: Sequence[int], linear: Any, shape: tuple[Any, ...]) -> dict[int, Any]:
    return dict(zip(axes, unravel(linear, tuple(shape[k] for k in axes)), strict=True))


def _totals(builder: Builder, node: Node, outer: list[int], gone: list[int]) -> Lowered:
    """One accumulator per result."""
    shape = node.inputs[0].shape
    rows = product(shape[k] for k in outer)
    row = Var("i", rows)
    vars = [Var(f"r{k}", shape[k]) for k in gone]
    places = _places(outer, atom(row), shape) | {
        k: atom(v) for k, v in zip(gone, vars, strict=True)
    }
    dtype, monoid = compute_dtype(node.dtype), loop_monoid(node)
    accumulator = Accumulator("a0", monoid, dtype, neutral(monoid, dtype))
    update = Update(accumulator, _source_value(builder, node, places))
    store = Store(builder.output(node), atom(row), builder.emit.read(accumulator))
    return builder.kernel(row, (Reset(accumulator), _nest(vars, (update,)), store))


def _columns(
    builder: Builder, node: Node, outer: list[int], gone: list[int], inner: list[int]
) -> Lowered:
    """A row of results is summed up in place (in scratch memory for 16-bit floats)."""
    shape = node.inputs[0].shape
    rows, cols = (product(shape[k] for k in axes) for axes in (outer, inner))
    row, col, again = Var("i", rows), Var("j", cols), Var("c", cols)
    vars = [Var(f"r{k}", shape[k]) for k in gone]
    places = _places(outer, atom(row), shape) | _places(inner, atom(col), shape)
    places |= {k: atom(v) for k, v in zip(gone, vars, strict=True)}
    dtype, monoid = compute_dtype(node.dtype), loop_monoid(node)
    out = builder.output(node)
    direct = out.dtype == dtype
    target = out if direct else builder.scratch_buffer(dtype, rows * cols)
    start = builder.emit.constant(neutral(monoid, dtype), dtype)
    value = _source_value(builder, node, places)
    body: list[Statement] = [
        Loop(again, (Store(target, atom(row) * cols + atom(again), start),)),
        _nest([*vars, col], (Combine(target, atom(row) * cols + atom(col), value, monoid),)),
    ]
    if not direct:
        last = Var("d", cols)
        at = atom(row) * cols + atom(last)
        body.append(Loop(last, (Store(out, at, builder.emit.load(target, at)),)))
    return builder.kernel(row, body)


def lower_scan(partition: Partition, group: Group, parts: int) -> Lowered:
    """A running combination along an axis; rows are all other axes."""
    builder = Builder(partition, group)
    (node,) = group.nodes
    (source,) = node.inputs
    op: Any = node.op
    shape = source.shape
    axis = normalize_axis(op.axis, len(shape), op.name)
    others = [k for k in range(len(shape)) if k != axis]
    row = Var("i", product(shape[k] for k in others))
    step = Var("s", shape[axis])
    at = shape[axis] - 1 - atom(step) if op.reverse else atom(step)
    places = _places(others, atom(row), shape) | {axis: at}
    linear = ravel([places[k] for k in range(len(shape))], shape)
    dtype, monoid = compute_dtype(node.dtype), loop_monoid(node)
    accumulator = Accumulator("a0", monoid, dtype, neutral(monoid, dtype))
    value = builder.emit.cast(builder.value(source, linear), dtype)
    update = Update(accumulator, value)
    store = Store(builder.output(node), linear, builder.emit.read(accumulator))
    inside = (store, update) if op.exclusive else (update, store)
    return builder.kernel(row, (Reset(accumulator), Loop(step, inside, independent=False)))


SPAN = (8, 1024)  # columns that a running combination takes along at a time, least and most
_BINARY = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}


def lower_scan_across(partition: Partition, group: Group, parts: int) -> Lowered:
    """A running combination along an axis that is not the last: a row of running values goes down
    the axis, so that memory is read in its order. `lower_scan` where the rows would be too short.
    """
    (node,) = group.nodes
    op: Any = node.op
    shape = node.inputs[0].shape
    axis = normalize_axis(op.axis, len(shape), op.name)
    steps, inner = shape[axis], product(shape[axis + 1 :])
    width = _span(inner)
    if not width:
        return lower_scan(partition, group, parts)
    builder = Builder(partition, group)
    emit, out = builder.emit, builder.output(node)
    spans = inner // width
    row, step = Var("i", product(shape[:axis]) * spans), Var("s", steps)
    clear, col = Var("c", width), Var("j", width)
    at = steps - 1 - atom(step) if op.reverse else atom(step)
    outer, span = unravel(atom(row), (product(shape[:axis]), spans))
    linear = (outer * steps + at) * inner + span * width + atom(col)
    dtype, monoid = compute_dtype(node.dtype), loop_monoid(node)
    running = builder.scratch_buffer(dtype, width * parts)
    place = atom(PART) * width
    old = emit.load(running, place + atom(col))
    new = emit.binary(_BINARY[monoid], old, emit.cast(builder.value(node.inputs[0], linear), dtype))
    inside = (
        Store(out, linear, old if op.exclusive else new),
        Store(running, place + atom(col), new),
    )
    start = Store(running, place + atom(clear), emit.constant(neutral(monoid, dtype), dtype))
    down = Loop(step, (Loop(col, inside),), independent=False)
    return builder.kernel(row, (Loop(clear, (start,)), down))


def _span(inner: Any) -> int:
    """Columns taken at a time: the most that divide a known number of columns; 0 for too few."""
    least, most = SPAN
    if not isinstance(inner, int):
        return 0
    return next((w for w in range(min(inner, most), least - 1, -1) if inner % w == 0), 0)


_SCATTER = {"add": "add", "mul": "mul", "max": "max", "min": "min"}


def lower_scatter(partition: Partition, group: Group, parts: int) -> Lowered:
    """A copy of the base, then all updates one after the other."""
    builder = Builder(partition, group)
    (node,) = group.nodes
    op: Any = node.op
    base, *_ = node.inputs
    out = builder.output(node)
    copy = Var("c", node.tensor.size)
    first = builder.value(base, atom(copy))
    updates = node.inputs[-1]
    vars = [Var(f"u{k}", s) for k, s in enumerate(updates.shape)]
    index = tuple(atom(v) for v in vars)
    loads = [_loader(builder, i) for i in node.inputs]
    outer, builder.emit.loc = builder.emit.loc, node.loc
    target = ravel(op.update_index(builder.emit, node.tensor, index, loads), node.shape)
    builder.emit.loc = outer
    value = loads[-1](index)
    body: list[Statement] = [Loop(copy, (Store(out, atom(copy), first),))]
    write = _write(out, target, value, op.mode)
    last = vars[-1] if vars else None
    if last is None:
        body.append(write)
    else:
        body.append(_nest(vars, (write,), _distinct(target, last)))
    return builder.kernel(None, body)


def _write(out: Buffer, target: Any, value: Scalar, mode: str) -> Statement:
    if mode == "set":
        return Store(out, target, value)
    return Combine(out, target, value, _SCATTER[mode])


def _distinct(target: Any, var: Var) -> bool:
    """Whether the places written in the innermost loop all differ."""
    dynamic = [a for a in atoms(target) if isinstance(a, Dynamic)]
    return (
        var in atoms(target)
        and is_affine(target, var)
        and not any(var in a.value.needs for a in dynamic)
    )


def _loader(builder: Builder, node: Node) -> Load:
    return builder.loader(node)
