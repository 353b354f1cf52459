"""Block: the numbers of a block of networks while it trains, and its step in raw torch operations.

Every layer's numbers are contiguous tensors, of the widths that products need (numerics.kernel_widths).
"""

from collections.abc import Iterator, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..backprop import Pass, backward_layers, bias_gradient, forward_layers, loss_and_delta, uncounted
from ..maths import rng
from ..maths.blocks import widen
from ..maths.numerics import finite_rows, row_sums
from ..maths.optimizers import rates, update
from ..maths.schedules import scheduled
from ..samples.data import Batch
from ..state import TrainState


@dataclass
class Part:
    """The weight (N, I, O) or bias (N, O) of a layer, with its slots of the same shape."""

    param: Tensor
    slots: list[Tensor]


class Forward(NamedTuple):
    """A block's forward pass, as the backward pass needs it, the loss (N,) with penalties, and the outs' delta."""

    layers: list[tuple[Tensor, Tensor]]
    passed: Pass
    masks: list[Tensor]
    silent: Tensor | None
    loss: Tensor
    delta: Tensor


class Block:
    """The numbers of a block of networks while it trains."""

    def __init__(self, state: TrainState, widths: Sequence[int]) -> None:
        self.state, self.spec, self.recipe, self.widths = state, state.population.spec, state.recipe, widths
        self.rule = state.recipe.rule
        self.parts = [
            [Part(param, list(slots)) for param, *slots in zip(*layer)]
            for layer in zip(*(widen(self.spec.layers(row), widths) for row in self._rows(state)))
        ]
        self.hyper, self.columns, self.memory = dict(state.hyper), dict(state.columns), dict(state.memory)
        self.ids, self.now, self.total_steps = state.population.ids, state.step, state.end[:, None].double()
        self.loss, self.total = state.loss, state.total
        self.fault = torch.zeros_like(state.loss)  # NaN once a loss is not finite
        self.keep(len(state.step))

    @staticmethod
    def _rows(state: TrainState) -> list[Tensor]:
        return [state.population.params, *state.slots]

    def keep(self, count: int) -> None:
        """Continue with the first `count` networks; a lone one is doubled, because products need two."""

        def cut(tensor: Tensor) -> Tensor:
            return tensor[:count] if count > 1 else torch.cat((tensor[:1], tensor[:1]))

        for layer in self.parts:
            for part in layer:
                part.param, part.slots = cut(part.param), [cut(slot) for slot in part.slots]
        for group in (self.hyper, self.columns, self.memory):
            for name, column in group.items():
                group[name] = cut(column)
        for name in ("ids", "now", "total_steps", "loss", "total", "fault"):
            setattr(self, name, cut(getattr(self, name)))
        self.typed = {name: column.to(self.loss.dtype) for name, column in self.hyper.items()}

    def held(self) -> Iterator[tuple[MutableMapping[Any, Tensor] | MutableSequence[Tensor], Any]]:
        """The place of each tensor that a step reads or changes, as holder and name for holder[name], always in the
        same order."""
        for layer in self.parts:
            for part in layer:
                yield vars(part), "param"
                yield from ((part.slots, number) for number in range(len(part.slots)))
        for group in (self.hyper, self.typed, self.columns, self.memory):
            yield from ((group, name) for name in sorted(group))
        yield from ((vars(self), name) for name in ("ids", "now", "total_steps", "loss", "total", "fault"))

    def forward(self, batch: Batch) -> Forward:
        """The first half of a step."""
        count = len(self.now)
        inputs, targets = (each.expand(count, *each.shape[1:]) for each in batch[:2])
        weight = None if batch.weight is None else batch.weight.expand(count, -1)
        if self.widths[0] > self.spec.widths[0]:
            inputs = pad(inputs, (0, self.widths[0] - self.spec.widths[0]))
        layers = [(weight.param, bias.param) for weight, bias in self.parts]
        masks = self.masks(inputs.shape[1])
        silent = uncounted(targets, weight, self.typed)
        passed = forward_layers(self.spec, layers, inputs, masks, silent)
        loss, delta = loss_and_delta(self.spec, passed.nets[-1], passed.outs[-1], targets, weight, self.typed)
        return Forward(layers, passed, masks, silent, self.penalised(loss), delta)

    def step(self, batch: Batch) -> None:
        """One step of every network: forward, backward, update."""
        layers, passed, masks, silent, loss, delta = self.forward(batch)
        self.begin_update()
        backward = backward_layers(self.spec, layers, passed, delta, masks, silent)
        if self.recipe.update_order == "layerwise":
            for number, *grads in backward:
                self.update_layer(number, self.gradient(number, *grads))  # in place: `layers` shares it
        else:
            gradients = {number: self.gradient(number, *grads) for number, *grads in backward}
            self.clip_norms(gradients)
            for number, grads in gradients.items():
                self.update_layer(number, grads)
        self.now = self.now + 1
        if not self.rule.absorbing:
            self.check_slots()
        self.loss, self.total, self.fault = loss, self.total + loss.double(), self.fault + loss * 0

    def masks(self, batch: int) -> list[Tensor]:
        """Dropout's factors for the outs of every hidden layer, (N, B, O) each; none without dropout.

        Unit o of slot j in layer l takes word j O + o of the sequence at (step, layer l, DROPOUT).
        """
        chance = self.hyper.get("dropout")
        if chance is None:
            return []
        least, factor = torch.round(chance * 2.0**32).long(), (1 / (1 - chance)).to(self.loss.dtype)
        masks = []
        for number, (width, wide) in enumerate(zip(self.spec.widths[1:-1], self.widths[1:-1])):
            seed = self.state.population.seed
            words = rng.words(seed, self.ids, batch * width, number, rng.DROPOUT, self.now & rng.WORD)
            mask = ((words >= least) * factor).unflatten(1, (batch, width))
            masks.append(pad(mask, (0, wide - width)))
        return masks

    def penalised(self, loss: Tensor) -> Tensor:
        """The loss (N,) with the L1 and L2 terms of the weights."""
        for name, term in (("l1", torch.abs), ("l2", torch.square)):
            if name in self.typed:
                factor = self.typed[name][:, 0] * (1 if name == "l1" else 0.5)
                for weight, _ in self.parts:
                    size = row_sums(term(weight.param).flatten(1))
                    loss = loss + (factor * size).masked_fill(factor == 0, 0)  # 0 means off, even if the sum overflows
        return loss

    def gradient(self, number: int, grad_weight: Tensor, grad_bias: Tensor) -> list[Tensor]:
        """A layer's gradients, with those of the penalties, 0 in the padding, each number clipped."""
        weight = self.parts[number][0].param
        if "l2" in self.typed:
            grad_weight = torch.addcmul(grad_weight, self.typed["l2"][:, :, None], weight)
        if "l1" in self.typed:
            grad_weight = torch.addcmul(grad_weight, self.typed["l1"][:, :, None], torch.sign(weight))
        grad_weight[:, self.spec.widths[number] :].zero_()
        grads = [grad_weight]
        if self.spec.train_bias:
            grads.append(bias_gradient(self.spec, grad_bias))
        if "clip_value" in self.typed:
            limit = self.typed["clip_value"]
            grads = [torch.clamp(grad, -_like(limit, grad), _like(limit, grad)) for grad in grads]
        return grads

    def clip_norms(self, gradients: dict[int, list[Tensor]]) -> None:
        """Limit the norm of each network's whole gradient, as torch.nn.utils.clip_grad_norm_ does."""
        if "clip_norm" not in self.typed:
            return
        grads = [grad for number in sorted(gradients) for grad in gradients[number]]
        squares = sum((row_sums(grad.flatten(1) * grad.flatten(1)) for grad in grads), torch.zeros_like(self.loss))
        factor = torch.clamp(self.typed["clip_norm"] / (torch.sqrt(squares)[:, None] + 1e-6), max=1)
        for grad in grads:
            grad *= _like(factor, grad)

    def begin_update(self) -> None:
        """What depends only on network and step, in float64: the scheduled rate, the rule's prepared columns."""
        step = self.now[:, None].double()
        lr = scheduled(self.recipe.timetable, {**self.hyper, **self.memory}, step, self.total_steps)
        self.rates, self.columns = rates(self.rule, self.hyper, self.columns, lr, self.loss.dtype)

    def update_layer(self, number: int, grads: Sequence[Tensor]) -> None:
        """The optimizer's step on one layer; frozen biases have no gradient and stay."""
        for part, grad in zip(self.parts[number], grads):
            if grad.shape[1]:
                part.slots = update(self.rule, part.param, grad, part.slots, self.rates.like(grad))
        weight, bias = self.parts[number]
        inputs, outputs = self.spec.widths[number : number + 2]
        if weight.param.shape[1:] != (inputs, outputs):  # a rule may move padding although its gradient is 0
            weight.param[:, inputs:].zero_()
            weight.param[:, :, outputs:].zero_()
            if self.spec.bias == "neuron":
                bias.param[:, outputs:].zero_()

    def check_slots(self) -> None:
        """Remember which networks' slots hold a non-finite number, padding aside."""
        for layer, views in zip(self.parts, self.spec.layers(self.state.population.params)):
            for part, view in zip(layer, views):
                real = (slice(None), *(slice(size) for size in view.shape[1:]))
                for slot in part.slots:
                    self.fault = self.fault + row_sums((slot[real] * 0).flatten(1))

    def leave(self, state: TrainState, first: int) -> Tensor:
        """Copy the networks from `first` on, which are those of `state`, back into it if all their numbers are finite.
        -> (N,) bool: which are finite."""
        some = slice(first, first + len(state.step))
        rows = self._rows(state)
        fresh = [torch.empty_like(row) for row in rows]
        for number, layer in enumerate(self.parts):
            for each, row in enumerate(fresh):
                for target, part in zip(self.spec.layers(row)[number], layer):
                    source = part.param if not each else part.slots[each - 1]
                    target.copy_(source[some][tuple(slice(size) for size in (None, *target.shape[1:]))])
        good = self.fault[some] == 0
        for row in fresh:
            good &= finite_rows(row)
        pairs = [*zip(rows, fresh), (state.step, self.now[some]), (state.loss, self.loss[some])]
        pairs += [(state.total, self.total[some])]
        pairs += [(state.columns[name], self.columns[name][some]) for name in state.columns]
        if good.device.type != "cpu" or not good.all():  # reading `good` would wait for a GPU
            pairs = [(old, torch.where(good if old.ndim == 1 else good[:, None], new, old)) for old, new in pairs]
        for old, new in pairs:  # needs no memory: all numbers of a network are copied, or none
            old.copy_(new)
        return good


def _like(column: Tensor, grad: Tensor) -> Tensor:
    """A column (N, 1) that broadcasts along a part (N, ...)."""
    return column if grad.ndim == 2 else column[:, :, None]
