"""The optimizer's step on a list of stacked tensors (N, ...), for the peers of gpubp: torch.optim's where all networks
share a learning rate, else Update with the same arithmetic. Defaults are torch.optim's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def optimizer_of(
    params: Sequence[Tensor], name: str, lr: float | Tensor, fused: bool = False, captured: bool = False
) -> torch.optim.Optimizer:
    """fused: into one kernel, not operation by operation over all tensors. captured: fused, in a form that a CUDA graph
    can capture."""
    if isinstance(lr, Tensor) or (captured and params[0].device.type == "cpu"):
        return Update(params, name, lr)
    rule, fused = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name], fused or captured
    return rule(params, lr=lr, foreach=not fused, fused=fused, **({"capturable": captured} if name == "adam" else {}))


class Update(torch.optim.Optimizer):
    """SGD or Adam with one lr for all, or one each, (N,). The numbers that depend on the step are in tensors, so that a
    CUDA graph updates them."""

    def __init__(self, params: Sequence[Tensor], name: str, lr: float | Tensor) -> None:
        super().__init__(params, {})
        first, self.params = params[0], params
        rates = torch.as_tensor(lr, dtype=torch.float64).to(first)
        self.rates = [rates.view(-1, *[1] * (param.ndim - 1)) if rates.ndim else rates for param in params]
        self.slots = [torch.zeros(2, *param.shape).to(param).unbind() if name == "adam" else () for param in params]
        self.betas = torch.tensor([BETA1, BETA2], dtype=torch.float64, device=first.device)
        self.powers = torch.ones_like(self.betas)  # beta^t

    @property
    def tensors(self) -> list[Tensor]:
        """All that a step changes besides the parameters."""
        return [self.powers, *(slot for slots in self.slots for slot in slots)]

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change the parameters in place, by their grad."""
        self.powers *= self.betas
        change(self.params, [param.grad for param in self.params], self.slots, self.rates, self.powers)


def change(
    params: Sequence[Tensor], grads: Sequence[Tensor], slots: Sequence[Sequence[Tensor]], rates: Sequence[Tensor],
    powers: Tensor,
) -> None:  # fmt: skip
    """Change parameters and slots in place, in as few passes as torch operations allow."""
    # Adam's bias corrections are numbers: in the rate and in eps they save two passes.
    root = torch.sqrt(1 - powers[1])
    scale, floor = (each.to(params[0].dtype) for each in (root / (1 - powers[0]), EPS * root))
    for param, direction, means, rate in zip(params, grads, slots, rates):
        if means:
            mean, square = means
            mean.lerp_(direction, 1 - BETA1)
            square.mul_(BETA2).addcmul_(direction, direction, value=1 - BETA2)
            direction, rate = mean / square.sqrt().add_(floor), rate * scale
        param.addcmul_(direction, rate, value=-1)
