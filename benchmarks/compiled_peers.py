"""torch.compile (inductor): the whole training step on stacked weights, and a 2-2-2 network unrolled by hand with
the network axis last. On a GPU the compiled steps of a call are captured as one CUDA graph by hand, because
torch.compile captures no step that changes its arguments in place, as training does.

The seconds of compilation are the first call minus a later one. Files of earlier runs are not used, so that these are
real.
"""

import atexit
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpubp.system import gpus

from .peers import Stacked, recorded
from .updates import Update, change
from .workloads import Problem

STEPS = 8  # of one compiled call, if K allows: the weights stay in registers in between


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
        self.update = Update(self.flat, problem.optimizer, problem.lr)
        first = problem.inputs[0], problem.targets[0]
        self.step, self.compile_seconds = compiled(self.one, lambda: (*deepcopy(self.changed), *first), self.flat[0])
        if self.flat[0].is_cuda:
            self.call = recorded(self.call, [*self.flat, *self.update.tensors])  # type: ignore[method-assign]

    @property
    def changed(self) -> tuple[Any, ...]:
        """What a step changes."""
        return self.flat, self.update.slots, self.update.powers

    def one(self, flat: Any, slots: Any, powers: Tensor, inputs: Tensor, target: Tensor) -> None:
        """A step."""
        powers.mul_(self.update.betas)
        change(flat, torch.func.grad(self.total)(flat, inputs, target), slots, self.update.rates, powers)

    def total(self, flat: Sequence[Tensor], inputs: Tensor, target: Tensor) -> Tensor:
        """The sum of the networks' losses."""
        out = inputs.expand(self.networks, *inputs.shape)
        for weight, bias, value in zip(flat[::2], flat[1::2], self.values):
            out = value(torch.baddbmm(bias, out, weight))
        return self.loss(out.flatten(0, 1), target.expand(self.networks, *target.shape).flatten(0, 1)) * self.networks

    def call(self) -> None:
        """K steps."""
        with torch.no_grad():
            for inputs, target in zip(self.problem.inputs, self.problem.targets):
                self.step(*self.changed, inputs, target)


class CompiledUnrolled(Stacked):
    """2-2-2, one sample per step, sigmoid in the hidden layer: every weight is (N,) numbers, forward and backward are
    the tutorial's formulas, up to STEPS of them in one compiled loop over the networks. Plain SGD."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        rows = problem.population.params
        self.weights = [column.clone() for column in rows.T]
        self.size = math.gcd(len(problem.inputs), STEPS)
        first = problem.inputs[: self.size], problem.targets[: self.size]
        step = partial(formulas, float(problem.lr))
        self.step, self.compile_seconds = compiled(step, lambda: (deepcopy(self.weights), *first), rows)
        if rows.is_cuda:
            self.call = recorded(self.call, self.weights)  # type: ignore[method-assign]

    def call(self) -> None:
        """K steps."""
        with torch.no_grad():
            for start in range(0, len(self.problem.inputs), self.size):
                part = slice(start, start + self.size)
                self.step(self.weights, self.problem.inputs[part], self.problem.targets[part])

    def params(self) -> Tensor:
        """The twelve numbers of each row."""
        return torch.stack(self.weights, 1)


def formulas(lr: float, weights: list[Tensor], inputs: Tensor, targets: Tensor) -> None:
    """Steps of 2-2-2. h: hidden, o: outputs; wab from input a to hidden b, vab from hidden a to output b."""
    w11, w12, w21, w22, b1, b2, v11, v12, v21, v22, c1, c2 = weights
    for sample, target in zip(inputs, targets):
        x1, x2, t1, t2 = sample[0, 0], sample[0, 1], target[0, 0], target[0, 1]
        h1 = torch.sigmoid(x1 * w11 + x2 * w21 + b1)
        h2 = torch.sigmoid(x1 * w12 + x2 * w22 + b2)
        o1, o2 = torch.sigmoid(h1 * v11 + h2 * v21 + c1), torch.sigmoid(h1 * v12 + h2 * v22 + c2)
        d1, d2 = (o1 - t1) * o1 * (1 - o1), (o2 - t2) * o2 * (1 - o2)
        e1 = (d1 * v11 + d2 * v12) * h1 * (1 - h1)
        e2 = (d1 * v21 + d2 * v22) * h2 * (1 - h2)
        d1, d2, e1, e2 = lr * d1, lr * d2, lr * e1, lr * e2
        v11, v12, v21, v22 = v11 - d1 * h1, v12 - d2 * h1, v21 - d1 * h2, v22 - d2 * h2
        w11, w12, w21, w22 = w11 - e1 * x1, w12 - e2 * x1, w21 - e1 * x2, w22 - e2 * x2
        b1, b2, c1, c2 = b1 - e1, b2 - e2, c1 - d1, c2 - d2
    for old, new in zip(weights, (w11, w12, w21, w22, b1, b2, v11, v12, v21, v22, c1, c2)):
        old.copy_(new)
