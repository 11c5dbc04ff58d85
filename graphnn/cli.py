"""The command line: `graphnn dump FILE.py:FUNCTION` and `graphnn doctor`."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import graphnn
from graphnn import doctor, inspection
from graphnn.compiler.dump import Dump, ops_text
from graphnn.concrete import ConcreteFunction
from graphnn.function import Function, Inspectable, Method
from graphnn.runtime.errors import GraphnnError, hide_own_frames

__all__ = ["main"]

TARGET = "FILE.py:FUNCTION"
FORMS = ("llvm", "optimized", "asm", "cuda")


class UsageError(Exception):
    """A command line that means nothing: what is wrong, and on further lines what to do."""


class UserError(Exception):
    """An exception of the user's own code, as its cause."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's own); returns the exit status.

    0: done. 1: the user's file raised. 2: the command line or a stage name is wrong.
    """
    options = _parser().parse_args(argv)
    try:
        text = doctor.report() if options.command == "doctor" else run_dump(options)
    except UserError as error:
        cause = error.__cause__
        if cause is not None:
            traceback.print_exception(hide_own_frames(cause))
        print(f"graphnn dump: {error}", file=sys.stderr)
        return 1
    except (UsageError, GraphnnError) as error:
        text = error.args[0] if isinstance(error, UsageError) else _without_place(error)
        print(f"graphnn {options.command}: {text}", file=sys.stderr)
        return 2
    try:
        print(text.rstrip("\n"), flush=True)
    except BrokenPipeError:  # the reader (head, a pager) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _without_place(error: GraphnnError) -> str:
    error.loc = None  # the place of a wrong option is the command line
    return error.text()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphnn", description="Look inside compiled functions and this installation."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="what is installed, used and missing")
    show = commands.add_parser(
        "dump",
        help="what became of a @function: stages, kernels, reasons",
        description="Print a stage of a compiled @function. The file is imported, without its "
        'part under if __name__ == "__main__".',
    )
    show.add_argument("target", nargs="?", metavar=TARGET, help="e.g. train.py:step, train.py:m.f")
    show.add_argument("--call", metavar="EXPR", help='an example call: "step(tf.zeros((8, 4)))"')
    show.add_argument("--trace", type=int, metavar="N", help="the Nth trace, not the latest")
    show.add_argument("--stage", action="append", metavar="S", help="summary, trace, ..., all")
    show.add_argument("--diff", nargs=2, metavar=("A", "B"), help="what B has changed since A")
    show.add_argument("--kernel", metavar="NAME", help="one kernel: k0, k1, ... or part of a name")
    show.add_argument("--llvm", action="store_true", help="LLVM text of the kernels")
    show.add_argument("--optimized", action="store_true", help="LLVM text after LLVM's passes")
    show.add_argument("--asm", action="store_true", help="assembly of the kernels")
    show.add_argument("--cuda", action="store_true", help="CUDA C of the kernels")
    show.add_argument(
        "--device", metavar="D", help="cuda or cuda:sm_80: compile for it, GPU or not"
    )
    show.add_argument("--explain", action="store_true", help="why each trace was made")
    show.add_argument("--ops", action="store_true", help="the table of all ops and their rules")
    return parser


# ---- graphnn dump -----------------------------------------------------------------------------


def run_dump(options: argparse.Namespace) -> str:
    """The text that `graphnn dump` prints."""
    if options.ops:
        return ops_text()
    if options.target is None:
        raise UsageError(f"give {TARGET}, or --ops for the table of ops")
    path, name = split_target(options.target)
    module = load_module(path)
    kept = None if options.call is None else evaluate(options.call, module)
    function = find_function(module, path, name)
    concrete = pick_trace(function, options, module, name)
    if options.explain:
        return function.explain()
    if options.device is None:
        found = inspection.inspect_program(concrete.compiled)
    else:
        found = inspection.inspect_for(concrete.graph, options.device)
    text = show(found, options)
    del kept  # what the call gave may hold the only reference to the function
    return text


def show(dump: Dump, options: argparse.Namespace) -> str:
    """What the options ask of a dump."""
    forms = [form for form in FORMS if getattr(options, form)]
    if options.kernel is not None:
        return "\n".join(dump.kernel(options.kernel, form) for form in forms or ["loops"])
    texts = [dump.text(stage) for stage in options.stage or ()]
    texts += [dump.diff(*options.diff)] if options.diff else []
    texts += [dump.text(form) for form in forms]
    return "\n".join(texts or [dump.text()])


def split_target(target: str) -> tuple[Path, str]:
    """File and dotted name. Raises UsageError."""
    file, colon, name = target.rpartition(":")
    if not colon or not file.endswith(".py"):
        file, name = target, ""
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"there is no file {file}\n  give {TARGET}")
    return path, name


def load_module(path: Path) -> ModuleType:
    """The file as an imported module, its folder first on the path as Python itself has it.

    Raises UserError if the file raises.
    """
    taken = path.stem in sys.modules or path.stem in sys.stdlib_module_names
    name = f"graphnn_dump_{path.stem}" if taken else path.stem
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"importing {path.name} raised {type(error).__name__}") from error
    return module


def find_function(module: ModuleType, path: Path, name: str) -> Inspectable:
    """The @function of a dotted name, or of that name inside the file's functions once called.

    Raises UsageError, which lists those there are.
    """
    known = [k for k, v in vars(module).items() if isinstance(v, Inspectable)]
    listed = f"  @functions of {path.name}: {', '.join(known) or 'none'}"
    if not name:
        if len(known) == 1:
            return getattr(module, known[0])  # type: ignore[no-any-return]
        raise UsageError(f"say which function: {path}:NAME\n{listed}")
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            inner = inner_functions(name)
            if inner:
                return inner[-1]
            raise UsageError(f"{path.name} has no {name}\n{listed}")
        value = getattr(value, part)
    if isinstance(value, Inspectable):
        return value
    raise UsageError(f"{name} is a {type(value).__name__}, not a @function\n{listed}")


def inner_functions(name: str) -> list[Function]:
    """The traced @functions of a name wherever they are: most are made inside other functions."""
    return [f for f in gc.get_objects() if type(f) is Function and f.name == name and f.concretes]


def evaluate(expression: str, module: ModuleType) -> Any:
    """The value of an example call among the names of the file.

    Raises UsageError for what is no expression, UserError for what raises.
    """
    try:
        code = compile(expression, "<--call>", "eval")
    except SyntaxError as error:
        raise UsageError(f"--call {expression!r} is no Python expression: {error.msg}") from None
    try:
        return eval(code, vars(module))
    except Exception as error:
        raise UserError(f"--call {expression!r} raised {type(error).__name__}") from error


def pick_trace(
    function: Inspectable, options: argparse.Namespace, module: ModuleType, name: str
) -> ConcreteFunction:
    """The trace to show: one that a call made, or that of the input signature.

    Raises UsageError, with an example, where there is none.
    """
    if not function.concretes and _signature(function) is not None:
        function.get_concrete_function()
    traces = function.concretes
    if not traces:
        raise UsageError(_no_trace(function, options, module, name))
    number = len(traces) if options.trace is None else options.trace
    if not 1 <= number <= len(traces):
        raise UsageError(f"--trace {number}: {name} has the traces 1 to {len(traces)}")
    return traces[number - 1]


def _signature(function: Any) -> Any:
    return function.input_signature


def _parameters(function: Any) -> list[str]:
    names = list(inspect.signature(function.python_function).parameters)
    return names[1:] if isinstance(function, Method) else names


def _no_trace(
    function: Inspectable, options: argparse.Namespace, module: ModuleType, name: str
) -> str:
    if options.call is not None:
        return f"--call {options.call!r} did not call {name} as a compiled function"
    alias = next((k for k, v in vars(module).items() if v is graphnn), "graphnn")
    arguments = ", ".join(f"{p}={alias}.zeros(...)" for p in _parameters(function))
    return (
        f"{name} is not called while {options.target.rpartition(':')[0]} is imported and has no "
        "input_signature, so its arguments are unknown\n"
        f'  give an example call: graphnn dump {options.target} --call "{name}({arguments})"\n'
        "  or @function(input_signature=[...])"
    )
