"""The workloads W1 to W6: topology, loss, number of networks, minibatch. Inputs and targets are seeded random numbers:
the cost of a step does not depend on them."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from gpubp import NetworkSpec, Population
from gpubp.maths.losses import LOSSES

LR = 1e-3  # small, so that no network diverges in a long run


class Problem(NamedTuple):
    """The start of every contender; none changes it.

    population: the initial weights of N networks. inputs (K, B, I); targets (K, B, O), or class numbers (K, B):
    minibatch k is that of step k of every call, for all networks. optimizer: "sgd" or "adam", with torch.optim's
    defaults. lr: a number for all networks, or (N,) float64.
    """

    population: Population
    inputs: Tensor
    targets: Tensor
    optimizer: str
    lr: float | Tensor


@dataclass(frozen=True)
class Workload:
    """N networks, B samples per step, K steps per call. own_lr: a learning rate per network.

    optimizers: timed unless the command line names others. goals: for each, gpubp's intended rate over the best peer's.
    mixed: several widths of the hidden layer, a population of each, one after the other in every call; `widths` has the
    largest, `networks` is the total.
    """

    widths: tuple[int, ...]
    hidden: str
    loss: str
    networks: int
    batch: int
    output: str = "identity"
    steps: int = 16
    own_lr: bool = False
    optimizers: tuple[str, ...] = ("sgd",)
    goals: tuple[float, ...] = ()
    mixed: tuple[int, ...] = ()

    @property
    def spec(self) -> NetworkSpec:
        """The networks' specification."""
        return NetworkSpec(self.widths, hidden=self.hidden, output=self.output, loss=self.loss)

    @property
    def parts(self) -> tuple[Workload, ...]:
        """Its populations."""
        count, (first, *_, last) = max(1, self.networks // max(1, len(self.mixed))), self.widths
        each = (replace(self, widths=(first, hidden, last), networks=count, mixed=()) for hidden in self.mixed)
        return (*each,) if self.mixed else (self,)

    @property
    def shape(self) -> str:
        """The widths, for a title."""
        hidden = [f"{{{','.join(map(str, self.mixed))}}}"] if self.mixed else self.widths[1:-1]
        return "-".join(map(str, (self.widths[0], *hidden, self.widths[-1])))

    @property
    def parameters(self) -> float:
        """Parameters of a network, in the mean."""
        return statistics.mean(part.spec.size for part in self.parts)

    @property
    def flop(self) -> float:
        """Model FLOP of one step of one network, in the mean.

        2B sum(IO) forward, as much for the weight gradients, 2B sum(IO) over the layers from the second on for the
        deltas, 2P for the update. Activations, padding, recomputation and the optimizer's slots do not count.
        """
        if self.mixed:
            return statistics.mean(part.flop for part in self.parts)
        products = [inputs * outputs for inputs, outputs in itertools.pairwise(self.widths)]
        return 2 * self.batch * (2 * sum(products) + sum(products[1:])) + 2 * self.spec.size

    def tiny(self) -> Workload:
        """Eight networks and two steps: enough to compare weights."""
        return replace(self, networks=8, steps=2)

    def problem(self, optimizer: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Problem:
        """Weights, minibatches and learning rates, the same at every call, as `dtype`."""
        numbers = torch.Generator().manual_seed(0)
        shape, width = (self.steps, self.batch), self.widths[-1]
        inputs = torch.randn(*shape, self.widths[0], generator=numbers, dtype=torch.float64)
        if LOSSES[self.loss].classes:
            targets = torch.randint(width, shape, generator=numbers)
        else:
            targets = torch.rand(*shape, width, generator=numbers, dtype=torch.float64).to(dtype)
        lr = LR * torch.logspace(-1, 1, self.networks, dtype=torch.float64) if self.own_lr else LR
        population = Population.create(self.spec, self.networks, dtype=dtype, device=device)
        return Problem(population, inputs.to(device, dtype), targets.to(device), optimizer, lr)


_W1 = Workload((2, 2, 2), "sigmoid", "half_squared_error", 200_000, 1, output="sigmoid", goals=(3.5,))
_W3 = Workload((16, 64, 64, 4), "relu", "mean_squared_error", 256, 128, steps=8, goals=(4.5,))
_W4 = Workload((784, 128, 10), "relu", "cross_entropy", 64, 64, steps=8, goals=(2.4,))

WORKLOADS = {
    "W1-K1": replace(_W1, steps=1),
    "W1-K64": replace(_W1, steps=64),
    "W2": Workload((8, 16, 1), "tanh", "mean_squared_error", 10_000, 32, optimizers=("sgd", "adam"), goals=(8, 15)),
    "W3-N256": _W3,
    "W3-N10000": replace(_W3, networks=10_000, steps=2),
    "W4-N64": _W4,
    "W4-N512": replace(_W4, networks=512, steps=4),
    "W5": Workload((64, 32, 10), "relu", "cross_entropy", 1_000, 64, own_lr=True, optimizers=("adam",), goals=(4.5,)),
    "W6-mixed": Workload((64, 128, 10), "relu", "cross_entropy", 500, 64, own_lr=True, optimizers=("adam",), goals=(1,),
                         mixed=(8, 16, 32, 64, 128)),
}  # fmt: skip
