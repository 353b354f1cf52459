"""torch.compile (inductor): the whole training step on stacked weights, and a 2-2-2 network unrolled by hand with
the network axis last. On a GPU the compiled steps of a call are captured as one CUDA graph by hand, because
torch.compile captures no step that changes its arguments in place, as training does.

Compiled steps are kept for the life of the process, by all that they are specialised for, with the seconds of
compilation: the first call minus a later one. Files of earlier runs are not used, so that these are real.
"""

from __future__ import annotations

import atexit
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpubp.maths.spec import NetworkSpec
from gpubp.system import gpus

from .peers import VALUES, Stacked, loss_of, recorded
from .updates import BETA1, BETA2, EPS
from .workloads import Problem

UNROLLED = (2, 2, 2)  # the topology of the formulas below
STEPS = 8  # of one compiled call, if K allows: the weights stay in registers in between


RECORDED = ("cuda",)  # kinds of devices on which the compiled steps of a call are one CUDA graph


class Compiled(NamedTuple):
    """A compiled step, and the seconds of its compilation."""

    step: Callable[..., Any]
    seconds: float


def compiled(step: Callable[..., Any], example: Callable[[], tuple[Any, ...]], like: Tensor) -> Compiled:
    """torch.compile of `step` for the device and dtype of `like`, done now, on example() arguments that it may change.
    On a GPU with autotuning, except in float64, which is not timed."""
    _own_cache()
    torch._dynamo.config.recompile_limit = 1000  # one function for all workloads: 8 is too few
    mode = "max-autotune-no-cudagraphs" if like.is_cuda and like.dtype != torch.float64 else None
    fast = torch.compile(step, fullgraph=True, dynamic=False, mode=mode)
    arguments = example()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            fast(*arguments)
        gpus.wait(like.device)
        seconds.append(time.perf_counter() - start)
    return Compiled(fast, max(0.0, seconds[0] - seconds[1]))


@cache
def _own_cache() -> None:
    folder = tempfile.mkdtemp(prefix="inductor")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


class CompiledBmm(Stacked):
    """Forward and loss with baddbmm, gradient by autograd, and the update in place: one compiled graph per step."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.flat = [part if part.ndim == 3 else part[:, None] for part in self.flat]
        spec, lr, first = problem.population.spec, problem.lr, self.flat[0]
        separate, self.adam = isinstance(lr, Tensor), problem.optimizer == "adam"
        rates = lr if separate else torch.tensor([lr], dtype=torch.float64)
        self.rates = rates.to(first)[:, None, None]
        self.slots = [torch.zeros_like(part) for part in self.flat * 2] if self.adam else []
        self.powers = torch.ones(2, dtype=torch.float64, device=first.device)
        self.betas = torch.tensor([BETA1, BETA2], dtype=torch.float64, device=first.device)
        key = (
            spec,
            problem.optimizer,
            separate,
            self.networks,
            *problem.inputs.shape[1:],
            first.dtype,
            str(first.device),
        )
        self.step, self.compile_seconds = _bmm(*key, self)
        self.call = _recorded(self.call, [*self.flat, *self.slots, self.powers])  # type: ignore[method-assign]

    def arguments(self, inputs: Tensor, target: Tensor) -> tuple[Any, ...]:
        """Arguments of the compiled step. corrections: 1 - beta^t of both means, in a tensor, so that changes need no
        recompilation."""
        return self.flat, self.slots, self.rates, (1 - self.powers).to(self.rates), inputs, target

    def call(self) -> None:
        """K steps."""
        with torch.no_grad():
            for inputs, target in zip(self.problem.inputs, self.problem.targets):
                self.powers *= self.betas
                self.step(*self.arguments(inputs, target))


def _recorded(call: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], None]:
    return recorded(call, changed) if changed[0].device.type in RECORDED else call


def _bmm(spec: NetworkSpec, optimizer: str, separate: bool, *rest: Any) -> Compiled:
    *key, contender = rest
    known = (spec, optimizer, separate, *key)
    if known not in _STEPS:
        values, loss, adam = [VALUES[name] for name in spec.activations], loss_of(spec), optimizer == "adam"

        def total(flat: Sequence[Tensor], inputs: Tensor, target: Tensor) -> Tensor:
            count = len(flat[0])
            out = inputs.expand(count, *inputs.shape)
            for weight, bias, value in zip(flat[::2], flat[1::2], values):
                out = value(torch.baddbmm(bias, out, weight))
            return loss(out.flatten(0, 1), target.expand(count, *target.shape).flatten(0, 1)) * count

        gradient = torch.func.grad(total)

        def step(
            flat: list[Tensor], slots: list[Tensor], rates: Tensor, corrections: Tensor, inputs: Tensor, target: Tensor
        ) -> None:
            count = len(flat)
            for number, (param, grad) in enumerate(zip(flat, gradient(flat, inputs, target))):
                direction = grad
                if adam:
                    mean, square = slots[number], slots[count + number]
                    mean.lerp_(grad, 1 - BETA1)
                    square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
                    direction = mean / corrections[0] / ((square / corrections[1]).sqrt() + EPS)
                param.sub_(rates * direction)

        def example() -> tuple[Any, ...]:
            flat, slots, *others = contender.arguments(contender.problem.inputs[0], contender.problem.targets[0])
            others[1] = torch.ones_like(others[1])
            return [part.clone() for part in flat], [slot.clone() for slot in slots], *others

        _STEPS[known] = compiled(step, example, contender.flat[0])
    return _STEPS[known]


_STEPS: dict[Any, Compiled] = {}


class CompiledUnrolled(Stacked):
    """2-2-2, one sample per step, sigmoid in the hidden layer: every weight is (N,) numbers, forward and backward are
    the tutorial's formulas, up to STEPS of them in one compiled loop over the networks. Plain SGD."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        rows, spec = problem.population.params, problem.population.spec
        self.weights = [column.clone() for column in rows.T]
        self.size = math.gcd(len(problem.inputs), STEPS)
        key = (spec.output, spec.loss, len(rows), self.size, rows.dtype, str(rows.device), float(problem.lr))
        if key not in _STEPS:
            step = _formulas(float(problem.lr), spec)
            first = problem.inputs[: self.size], problem.targets[: self.size]
            _STEPS[key] = compiled(step, lambda: ([weight.clone() for weight in self.weights], *first), rows)
        self.step, self.compile_seconds = _STEPS[key]
        self.call = _recorded(self.call, self.weights)  # type: ignore[method-assign]

    def call(self) -> None:
        """K steps."""
        with torch.no_grad():
            for start in range(0, len(self.problem.inputs), self.size):
                part = slice(start, start + self.size)
                self.step(self.weights, self.problem.inputs[part], self.problem.targets[part])

    def params(self) -> Tensor:
        """The twelve numbers of each row."""
        return torch.stack(self.weights, 1)


def _formulas(lr: float, spec: NetworkSpec) -> Callable[[list[Tensor], Tensor, Tensor], None]:
    """The step for widths 2-2-2. h: hidden, o: outputs; wab from input a to hidden b, vab from hidden a to output b."""
    squashed = spec.output == "sigmoid"
    if spec.loss not in ("half_squared_error", "mean_squared_error") or spec.output not in ("sigmoid", "identity"):
        raise ValueError(f"{spec.output}, {spec.loss}: the formulas are for squared errors of sigmoid or identity")

    def end(net: Tensor) -> Tensor:
        return torch.sigmoid(net) if squashed else net

    def step(weights: list[Tensor], inputs: Tensor, targets: Tensor) -> None:
        w11, w12, w21, w22, b1, b2, v11, v12, v21, v22, c1, c2 = weights
        for sample, target in zip(inputs, targets):
            x1, x2, t1, t2 = sample[0, 0], sample[0, 1], target[0, 0], target[0, 1]
            h1 = torch.sigmoid(x1 * w11 + x2 * w21 + b1)
            h2 = torch.sigmoid(x1 * w12 + x2 * w22 + b2)
            o1, o2 = end(h1 * v11 + h2 * v21 + c1), end(h1 * v12 + h2 * v22 + c2)
            d1, d2 = o1 - t1, o2 - t2  # of half the sum of squares, and of the mean of two squares
            if squashed:
                d1, d2 = d1 * o1 * (1 - o1), d2 * o2 * (1 - o2)
            e1 = (d1 * v11 + d2 * v12) * h1 * (1 - h1)
            e2 = (d1 * v21 + d2 * v22) * h2 * (1 - h2)
            d1, d2, e1, e2 = lr * d1, lr * d2, lr * e1, lr * e2
            v11, v12, v21, v22 = v11 - d1 * h1, v12 - d2 * h1, v21 - d1 * h2, v22 - d2 * h2
            w11, w12, w21, w22 = w11 - e1 * x1, w12 - e2 * x1, w21 - e1 * x2, w22 - e2 * x2
            b1, b2, c1, c2 = b1 - e1, b2 - e2, c1 - d1, c2 - d2
        for old, new in zip(weights, (w11, w12, w21, w22, b1, b2, v11, v12, v21, v22, c1, c2)):
            old.copy_(new)

    return step
