"""The optimizer's step on a list of stacked tensors (N, ...), for the peers of gpubp.

torch.optim if all networks share a learning rate. It does not take a learning rate per network, so for that, and for
gradients without autograd, Update has the same arithmetic, elementwise and in place, in as few passes as
torch operations allow. Defaults are torch.optim's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def torch_optimizer(params: Sequence[Tensor], optimizer: str, lr: float, fused: bool) -> torch.optim.Optimizer:
    """torch.optim's, either fused into one kernel or operation by operation over all tensors."""
    rule = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    return rule(params, lr=lr, foreach=not fused, fused=fused)


def capturable(params: Sequence[Tensor], optimizer: str, lr: float) -> torch.optim.Optimizer:
    """torch.optim's, fused, in a form that a CUDA graph can capture."""
    if optimizer == "sgd":
        return torch.optim.SGD(params, lr=lr, fused=True)
    return torch.optim.Adam(params, lr=lr, fused=True, capturable=True)


class Update:
    """SGD or Adam with one lr for all, or a column of them."""

    def __init__(self, params: Sequence[Tensor], optimizer: str, lr: float | Tensor) -> None:
        self.params, self.adam, self.steps = params, optimizer == "adam", 0
        separate = isinstance(lr, Tensor)
        self.rates = [lr.to(p).view(-1, *[1] * (p.ndim - 1)) if separate else lr for p in params]
        self.means = [torch.zeros_like(p) for p in params] if self.adam else []
        self.squares = [torch.zeros_like(p) for p in params] if self.adam else []

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        """Change the parameters in place."""
        self.steps += 1
        for number, (param, grad, rate) in enumerate(zip(self.params, grads, self.rates)):
            scale, direction = self._adam(number, grad) if self.adam else (1.0, grad)
            if isinstance(rate, Tensor):
                param.addcmul_(direction, rate * scale, value=-1)
            else:
                param.add_(direction, alpha=-rate * scale)

    def _adam(self, number: int, grad: Tensor) -> tuple[float, Tensor]:
        mean, square = self.means[number], self.squares[number]
        mean.lerp_(grad, 1 - BETA1)
        square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        # Both bias corrections are scalars: in the rate and in eps they save two passes.
        root = math.sqrt(1 - BETA2**self.steps)
        floor = square.sqrt().add_(EPS * root)
        return root / (1 - BETA1**self.steps), torch.div(mean, floor, out=floor)


class DeviceUpdate(Update):
    """The same, with the numbers that depend on the step in tensors, so that a CUDA graph updates them."""

    def __init__(self, params: Sequence[Tensor], optimizer: str, lr: float | Tensor) -> None:
        super().__init__(params, optimizer, lr)
        first = params[0]
        self.rates = [torch.as_tensor(rate, dtype=first.dtype, device=first.device) for rate in self.rates]
        self.betas = torch.tensor([BETA1, BETA2], dtype=torch.float64, device=first.device)
        self.powers = torch.ones_like(self.betas)

    def reset(self) -> None:
        """As before the first step, in the same tensors."""
        self.powers.fill_(1)
        for slot in (*self.means, *self.squares):
            slot.zero_()

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        """Change the parameters in place."""
        self.powers *= self.betas
        root = torch.sqrt(1 - self.powers[1])
        scale, floor = (each.to(grads[0].dtype) for each in (root / (1 - self.powers[0]), EPS * root))
        for number, (param, grad, rate) in enumerate(zip(self.params, grads, self.rates)):
            direction = grad
            if self.adam:
                mean, square = self.means[number], self.squares[number]
                mean.lerp_(grad, 1 - BETA1)
                square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
                direction, rate = mean / square.sqrt().add_(floor), rate * scale
            param.addcmul_(direction, rate, value=-1)
