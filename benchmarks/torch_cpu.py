"""The workloads in PyTorch: eager, and with model and loss under torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks import data
from benchmarks.clock import Case, Epochs
from benchmarks.peers import Options
from benchmarks.training import hand_loop

CALLS = 1000
CHAINED = 100


class Torch:
    """One method a workload; the peer's name says whether functions are compiled."""

    def __init__(self, options: Options) -> None:
        torch.manual_seed(0)
        self.compiled = options.peer == "torch-compile"
        self.version = torch.__version__

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function) if self.compiled else function

    def chain(self) -> Case:
        x, w, b = map(_tensor, data.chain())

        @self._function
        def chain(x: Any, w: Any, b: Any) -> Any:
            return functional.gelu(x * w + b, approximate="tanh") * torch.sigmoid(x) + x

        def step() -> Any:
            with torch.no_grad():
                return chain(x, w, b)

        return Case(step, check=lambda y: [y.mean(), y[1, 2]], bytes=2 * x.nbytes)

    def softmax_xent(self) -> Case:
        logits, labels = map(_tensor, data.softmax_xent())
        logits.requires_grad_()
        loss_of = self._function(functional.cross_entropy)

        def step() -> tuple[Any, Any]:
            loss = loss_of(logits, labels)
            return loss, torch.autograd.grad(loss, logits)[0]

        def check(out: tuple[Any, Any]) -> list[Any]:
            return [out[0].detach(), out[1].abs().sum()]

        return Case(step, check=check, bytes=2 * logits.nbytes)

    def layernorm(self) -> Case:
        x, gain, offset, dy = map(_tensor, data.layernorm())
        inputs = [tensor.requires_grad_() for tensor in (x, gain, offset)]

        @self._function
        def norm(x: Any, gain: Any, offset: Any) -> Any:
            return functional.layer_norm(x, gain.shape, gain, offset, data.NORM_EPSILON)

        def step() -> tuple[Any, ...]:
            y = norm(*inputs)
            return y, *torch.autograd.grad(y, inputs, dy)

        def check(out: tuple[Any, ...]) -> list[Any]:
            return [value.detach().abs().mean() for value in out]

        return Case(step, check=check, bytes=5 * x.nbytes)

    def mlp(self) -> Case:
        return self._train_case(data.MLP_SIZES, data.MLP_BATCH)

    def mlp_tiny(self) -> Case:
        return self._train_case(data.TINY_SIZES, data.TINY_BATCH)

    def fit(self) -> Epochs:
        train = self._train_step(data.fit()[2])
        return hand_loop(lambda x, labels: train(torch.from_numpy(x), torch.from_numpy(labels)))

    def eager_add(self) -> dict[str, Case]:
        a, b, left, right = map(_tensor, data.eager())
        leaf = a.clone().requires_grad_()
        if self.compiled:
            add_one = torch.compile(lambda a: a + 1)
            return {"jit_call": _calls(lambda: add_one(a))}

        def chained() -> Any:
            c = leaf
            for _ in range(CHAINED):
                c = c + b
            return torch.autograd.grad(c.sum(), leaf)

        note = f"record and differentiate {CHAINED} chained adds, per add"
        return {
            "add": _calls(lambda: a + b),
            "matmul": _calls(lambda: left @ right),
            "add_recorded": _calls(lambda: leaf + b, recorded=True),
            "tape_per_op": Case(chained, per_call=CHAINED, note=note),
        }

    def _train_case(self, sizes: tuple[int, ...], batch: int) -> Case:
        arrays = data.mlp(sizes, batch)
        x, labels = _tensor(arrays[0]), _tensor(arrays[1])
        train = self._train_step(arrays[2])
        return Case(lambda: train(x, labels), check=lambda loss: [loss])

    def _train_step(self, layers: data.Layers) -> Callable[[Any, Any], Any]:
        model = _model(layers)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8, fused=True)

        @self._function
        def loss_of(x: Any, labels: Any) -> Any:
            return functional.cross_entropy(model(x), labels)

        def step(x: Any, labels: Any) -> Any:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step


def _tensor(array: Any) -> Any:
    return torch.from_numpy(array.copy())


def _calls(call: Callable[[], Any], recorded: bool = False) -> Case:
    def step() -> Any:
        with torch.set_grad_enabled(recorded):
            for _ in range(CALLS):
                c = call()
        return c

    return Case(step, per_call=CALLS)


def _model(layers: data.Layers) -> Any:
    """Linear layers with relu between, holding the given weights."""
    modules: list[Any] = []
    for weight, bias in layers:
        linear = nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": _tensor(weight.T), "bias": _tensor(bias)})
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])
