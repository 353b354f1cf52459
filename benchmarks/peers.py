"""Contenders: gpubp's engines, and torch without compilation. Each is made from a Problem, advances K steps per call(),
and returns params() in gpubp's layout; contenders.py has the table of all.

They have the same initial weights, minibatches, loss, optimizer and learning rates, and parity() proves it. gpubp reads
the minibatches from a Dataset in order (shuffle="none"), so that they are those that the others slice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, pad

from gpubp import Dataset, NetworkSpec, TrainConfig
from gpubp.engines import ENGINES
from gpubp.settings.recipe import EXACT
from gpubp.state import TrainState
from gpubp.system import gpus

from .updates import Update, optimizer_of
from .workloads import Problem

LONG = 10**9  # steps, more than any run

VALUES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda net: net, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
}  # fmt: skip


class Contender(Protocol):
    """networks: how many it trains. It has a wait() if torch cannot wait for its calls."""

    networks: int

    def call(self) -> None:
        """K steps of each; on a GPU without waiting for them."""

    def params(self) -> Tensor:
        """The present rows, (networks, P)."""


class Together:
    """The contenders of several topologies, one after the other."""

    def __init__(self, parts: Sequence[Contender]) -> None:
        self.parts, self.networks = parts, sum(part.networks for part in parts)
        spent = [part.compile_seconds for part in parts if hasattr(part, "compile_seconds")]
        if spent:
            self.compile_seconds = sum(spent)

    def call(self) -> None:
        """K steps of all."""
        for part in self.parts:
            part.call()

    def wait(self) -> None:
        """Wait until they are done."""
        for part in self.parts:
            wait(part)

    def params(self) -> Tensor:
        """All rows, padded with zeros to the longest."""
        rows = [part.params() for part in self.parts]
        longest = max(each.shape[1] for each in rows)
        return torch.cat([pad(each, (0, longest - each.shape[1])) for each in rows])


def wait(contender: Contender) -> None:
    """Wait for calls that torch does not know of."""
    getattr(contender, "wait", lambda: None)()


def together(parts: Sequence[Contender]) -> Contender:
    """One contender of all."""
    return parts[0] if len(parts) == 1 else Together(parts)


class Engine:
    """An engine of gpubp, by its name in ENGINES. precision: of products in float32."""

    def __init__(self, problem: Problem, name: str = "eager", precision: str = EXACT) -> None:
        population = replace(problem.population, params=problem.population.params.clone())
        self.networks, (self.steps, batch) = population.count, problem.inputs.shape[:2]
        config = TrainConfig(
            problem.optimizer, lr=problem.lr, batch_size=batch, steps=LONG, shuffle="none",
            precision=precision if problem.inputs.dtype == torch.float32 else EXACT,
        )  # fmt: skip
        self.data = Dataset(problem.inputs.flatten(0, 1), problem.targets.flatten(0, 1))
        self.state = TrainState.start(population, config, self.data)
        self.state.limit.copy_(self.state.end)
        self.run = ENGINES[name].run

    def call(self) -> None:
        """K steps."""
        self.run(self.state, self.data, self.steps)

    def params(self) -> Tensor:
        """The rows. Diverged networks no longer train, which would make gpubp look fast."""
        if not bool(self.state.running.all()):
            raise AssertionError(f"{int((~self.state.running).sum())} networks diverged: the figures mean nothing")
        return self.state.population.params


class Stacked:
    """Stacked parameters of all networks: per layer a weight (N, I, O) and a bias; autograd, and torch.optim, or Update
    where it would not do: it takes no learning rate per network."""

    optimizer: torch.optim.Optimizer

    def __init__(self, problem: Problem) -> None:
        self.problem, self.loss, self.networks = problem, loss_of(problem.population.spec), problem.population.count
        self.values = [VALUES[name] for name in problem.population.spec.activations]
        layers = problem.population.spec.layers(problem.population.params)
        self.flat = [part.clone(memory_format=torch.contiguous_format) for layer in layers for part in layer]

    def call(self) -> None:
        """K steps."""
        for inputs, target in zip(self.problem.inputs, self.problem.targets):
            for part, grad in zip(self.flat, self.gradients(inputs, target)):
                part.grad = grad
            self.optimizer.step()

    def gradients(self, inputs: Tensor, target: Tensor) -> Sequence[Tensor]:
        """Of all parameters."""
        return torch.autograd.grad(self.forward(inputs, target), self.flat)

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        """The sum of the networks' losses, whose gradient is each network's. In one long batch of N B samples the mean
        is that of the networks' losses."""
        target = target.expand(self.networks, *target.shape).flatten(0, 1)
        return self.loss(self.outs(inputs).flatten(0, 1), target) * self.networks

    def outs(self, inputs: Tensor) -> Tensor:
        """(N, B, O)."""
        raise NotImplementedError

    def params(self) -> Tensor:
        """Layer after layer, the weight before the bias."""
        return torch.cat([part.detach().flatten(1) for part in self.flat], 1)


class AutogradBmm(Stacked):
    """baddbmm on stacked weights; fused: with torch.optim's fused kernel; captured: with what a CUDA graph can hold."""

    def __init__(self, problem: Problem, fused: bool = False, captured: bool = False) -> None:
        super().__init__(problem)
        for number, part in enumerate(self.flat):
            # (N, 1, O) from the start: adding the dimension in every step would cost autograd a node
            self.flat[number] = (part if part.ndim == 3 else part[:, None]).requires_grad_()
        self.layers = list(zip(self.flat[::2], self.flat[1::2]))
        self.optimizer = optimizer_of(self.flat, problem.optimizer, problem.lr, fused, captured)

    def outs(self, inputs: Tensor) -> Tensor:
        """(N, B, O)."""
        out = inputs.expand(self.networks, -1, -1)
        for (weight, bias), value in zip(self.layers, self.values):
            out = value(torch.baddbmm(bias, out, weight))
        return out


class AutogradGraph(AutogradBmm):
    """AutogradBmm on a GPU, with its K steps captured as one CUDA graph, without Python in between."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, captured=True)
        changed = [*self.flat, *(self.optimizer.tensors if isinstance(self.optimizer, Update) else ())]
        self.replay = recorded(super().call, changed)
        for slots in self.optimizer.state.values():  # torch.optim's, which are not there before the first step
            for slot in slots.values():
                slot.zero_()

    def call(self) -> None:
        """K steps."""
        self.replay()


class AutogradGraphTf32(AutogradGraph):
    """The same, with operands of float32 products rounded to TF32, which is the recording's."""

    def __init__(self, problem: Problem) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            super().__init__(problem)
        finally:
            torch.set_float32_matmul_precision(before)


def recorded(steps: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], None]:
    """The launches of `steps` as one CUDA graph. changed: the tensors that it changes, which are restored."""
    begun = [each.detach().clone() for each in changed]
    with gpus.on(changed[0].device):
        replay = gpus.capture(steps)
    with torch.no_grad():
        for each, before in zip(changed, begun):
            each.copy_(before)
    return replay


class VmapGrad(Stacked):
    """torch.func: vmap over the networks of grad of one network's loss, on stacked weights, with Update."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.optimizer = Update(self.flat, problem.optimizer, problem.lr)
        self.each = torch.func.vmap(torch.func.grad(self.one), in_dims=(0, None, None))

    def one(self, flat: list[Tensor], inputs: Tensor, target: Tensor) -> Tensor:
        """The loss of one network."""
        out = inputs
        for weight, bias, value in zip(flat[::2], flat[1::2], self.values):
            out = value(torch.addmm(bias, out, weight))
        return self.loss(out, target)

    def gradients(self, inputs: Tensor, target: Tensor) -> Sequence[Tensor]:
        """Of all parameters."""
        return self.each(self.flat, inputs, target)


class TabmEnsemble(Stacked):
    """tabm.LinearEnsemble, a module of N linear layers in parallel."""

    def __init__(self, problem: Problem) -> None:
        from tabm import LinearEnsemble

        super().__init__(problem)
        self.linears = []
        for weight, bias in zip(self.flat[::2], self.flat[1::2]):
            inputs, outputs = weight.shape[1:]
            linear = LinearEnsemble(inputs, outputs, k=self.networks, dtype=weight.dtype, device=weight.device)
            linear.weight.data, linear.bias.data = weight, bias
            self.linears.append(linear)
        self.flat = [part for linear in self.linears for part in (linear.weight, linear.bias)]
        self.optimizer = optimizer_of(self.flat, problem.optimizer, problem.lr)

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        """An ensemble takes (B, N, I)."""
        out = inputs[:, None].expand(-1, self.networks, -1)
        for linear, value in zip(self.linears, self.values):
            out = value(linear(out))
        repeated = target[:, None].expand(target.shape[0], self.networks, *target.shape[1:]).flatten(0, 1)
        return self.loss(out.flatten(0, 1), repeated) * self.networks


class TabPack(Stacked):
    """TabPack (arXiv 2607.05380): its LinearPack, with its AdamWPack without weight decay."""

    def __init__(self, problem: Problem) -> None:
        from project.nn import LinearPack
        from project.optim import AdamWPack

        super().__init__(problem)
        self.packs = []
        for weight, bias in zip(self.flat[::2], self.flat[1::2]):
            pack = LinearPack(*weight.shape[1:], pack_size=self.networks, dtype=weight.dtype, device=weight.device)
            pack.weight.data, pack.bias.data = weight.mT.contiguous(), bias
            self.packs.append(pack)
        self.flat = [part for pack in self.packs for part in (pack.weight, pack.bias)]
        self.optimizer = AdamWPack(self.flat, lr=0.0, weight_decay=0.0, pack_size=self.networks, shared_step=True)
        rates = problem.lr.flatten().to(self.flat[0]) if isinstance(problem.lr, Tensor) else problem.lr
        self.optimizer.param_groups[0]["lr"] = rates

    def params(self) -> Tensor:
        """Layer after layer, the weight before the bias. A pack's weights are (N, O, I)."""
        return torch.cat([part.flatten(1) for pack in self.packs for part in (pack.weight.data.mT, pack.bias.data)], 1)

    def outs(self, inputs: Tensor) -> Tensor:
        """(N, B, O)."""
        out = inputs.expand(self.networks, -1, -1)
        for pack, value in zip(self.packs, self.values):
            out = value(pack(out))
        return out


def loss_of(spec: NetworkSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """torch's loss of one network: out (B, O), target -> a number."""
    width = spec.widths[-1]
    return {
        "cross_entropy": cross_entropy,
        "mean_squared_error": mse_loss,
        "half_squared_error": lambda out, target: mse_loss(out, target) * (width / 2),
    }[spec.loss]
