"""What first was not finite in the step in which a network diverged: that step is repeated on a copy.

A diverged network's rows, slots and clocks are those before its last step, which did not count, so that nothing has to
be watched during training. The step is repeated by the definition (engines/block.py): if all is finite there, as a sum
in another order may be, there is no answer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import stopping
from ..engines.block import Block, Forward
from ..maths.blocks import blocks
from ..maths.numerics import kernel_widths
from ..maths.spec import NetworkSpec
from ..samples.data import Batch, Dataset
from ..settings.recipe import Recipe
from ..state import Status, TrainState
from ..system.ambient import neutral

NONE = -1  # instead of a place in quantities(): the network has not diverged, or it is unknown


def quantities(spec: NetworkSpec, recipe: Recipe) -> list[str]:
    """What a step computes, as texts; the numbers of first_faults() are places among them."""
    layers = layer_names(spec)
    slots = [f"{recipe.optimizer}'s {slot}" for slot in recipe.rule.slots]
    forward = [f"{name} of {layer}" for layer in layers for name in ("net", "out")]
    return [*forward, "loss", *(f"{name} of {layer}" for name in ("gradient", *slots, "weights") for layer in layers)]


def layer_names(spec: NetworkSpec) -> list[str]:
    """The names of the layers."""
    return [*(f"hidden layer {number}" for number in range(1, len(spec.layout))), "output layer"]


@neutral()
@torch.no_grad()
def first_faults(state: TrainState, data: Dataset) -> Tensor:
    """(N,) int16: which of quantities() first was not finite in each network's last step; NONE for networks that have
    not diverged. The rows are those at the end of the training (stopping.restore)."""
    spec, batch, params = state.population.spec, state.recipe.batch_size, state.population.params
    found = torch.full((len(params),), NONE, dtype=torch.int16)
    lost = (state.status == Status.diverged).nonzero().squeeze(1)
    if not len(lost):
        return found
    data = data.to(params.device, params.dtype)
    for part in blocks(spec, len(lost), batch, params.element_size(), params.device):
        some = state.rows(lost[part])
        stopping.restore(some)  # undoes the exchange of present and kept rows
        found[lost[part].cpu()] = next_faults(some, data).cpu()
    return found


def next_faults(state: TrainState, data: Dataset) -> Tensor:
    """The same for the next step of a block of networks, whatever their status."""
    clocks = state.population.ids, state.position, state.step
    order = data.order(state.population.seed, *clocks, 1, state.recipe.batch_size, state.recipe.shuffle)
    watch = Watch(state)
    watch.step(data.batch(order, state.position))
    return watch.found[: len(state.step)]


class Watch(Block):
    """A block of networks for one step. found (N,): which of quantities() first was not finite."""

    def __init__(self, state: TrainState) -> None:
        super().__init__(state, kernel_widths(state.population.spec.widths, state.recipe.batch_size))
        self.place = {name: place for place, name in enumerate(quantities(self.spec, self.recipe))}
        self.layers = layer_names(self.spec)
        self.found = torch.full_like(self.now, NONE, dtype=torch.int16)

    def see(self, name: str, *numbers: Tensor) -> None:
        """Check numbers (N, ...) of a quantity, in the order of computation."""
        for each in numbers:
            bad = ~each.flatten(1).isfinite().all(1) & (self.found == NONE)
            self.found = self.found.masked_fill(bad, self.place[name])

    def forward(self, batch: Batch) -> Forward:
        """Block's."""
        made = super().forward(batch)
        for layer, net, out in zip(self.layers, made.passed.nets, made.passed.outs):
            self.see(f"net of {layer}", net)
            self.see(f"out of {layer}", out)
        self.see("loss", made.loss[:, None])
        return made

    def gradient(self, number: int, grad_weight: Tensor, grad_bias: Tensor) -> list[Tensor]:
        """Block's."""
        grads = super().gradient(number, grad_weight, grad_bias)
        self.see(f"gradient of {self.layers[number]}", *grads)
        return grads

    def update_layer(self, number: int, grads: Sequence[Tensor]) -> None:
        """Block's."""
        super().update_layer(number, grads)
        layer, (inputs, outputs, *_) = self.layers[number], self.spec.layout[number]
        weight, bias = self.parts[number]
        for slot, name in enumerate(self.rule.slots):  # padding does not matter
            some = weight.slots[slot][:, :inputs, :outputs], bias.slots[slot][:, :outputs]
            self.see(f"{self.recipe.optimizer}'s {name} of {layer}", *some)
        self.see(f"weights of {layer}", weight.param, bias.param)
