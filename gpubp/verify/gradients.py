"""The gradient of backprop.py, in float64, against torch.autograd's and against differences of the loss."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ..backprop import gradients
from ..maths.activations import ACTIVATIONS, Activation
from ..maths.losses import LOSSES
from ..maths.spec import OUTPUTS, NetworkSpec
from ..population import Population
from ..runs.run import next_minibatch
from ..state import TrainState
from .comparing import SMALL, BlindError, Found, Numbers, Row, checked, compare
from .reference import leaves, reference_loss, reference_out, reference_row
from .subject import Subject, synthetic

AUTOGRAD = 1e-10  # sums of some hundred terms in another order are off by 1e-13 in float64
DIFFERENCE = 1e-6  # central differences are off by 1e-8, for rounding and for curvature
STEP, DIRECTIONS = 1e-4, 8
SCALES = (1, 0.1, 3, 10, 10, 1)  # of the inputs of tables(): activations and losses are also tested where they saturate
DIGITS = 1e-2  # of the loss: differences are relative to slopes of at least this size, to keep out rounding
OFF = 1 + 1e-3  # the planted slope, times the right one
PLANTED = f"a slope off by {OFF - 1:.0e}"


@dataclass(frozen=True)
class Batch:
    """Networks of one specification in float64, with a minibatch each: params (N, P), inputs (N, B, I), targets, sample
    weights or None, and the loss's hyper-parameters by name, (N,) each."""

    spec: NetworkSpec
    params: Tensor
    inputs: Tensor
    targets: Tensor
    weight: Tensor | None = None
    hyper: dict[str, Tensor] = field(default_factory=dict)

    def ours(self, spec: NetworkSpec | None = None, params: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """gradients(): the loss of each network (N,) and its gradient (N, P)."""
        params = self.params if params is None else params
        return gradients(spec or self.spec, params, self.inputs, self.targets, self.weight, self.hyper)

    def masks(self, n: int) -> list[Tensor]:
        """Dropout's factors for network n."""
        return []

    def switches(self, n: int) -> dict[str, float]:
        """l1, l2, clip_value and clip_norm of network n, as far as they are on."""
        return {}


def starts(subject: Subject) -> Iterator[tuple[TrainState, tuple[Any, ...]]]:
    """Every network as it begins, and the fields of a Batch with its first minibatch."""
    for group in subject.groups(torch.float64):
        state, data, _ = subject.start(group, group.population.device, "eager")
        yield state, next_minibatch(state, data)


def tables() -> Iterator[Batch]:
    """A network for each activation with each loss, and for each output activation."""
    pairs = [(hidden, "identity", loss) for hidden, loss in product(ACTIVATIONS, LOSSES)]
    free = next(name for name, loss in LOSSES.items() if loss.takes not in OUTPUTS)
    for hidden, output, loss in [*pairs, *(("tanh", output, free) for output in ACTIVATIONS)]:
        spec = NetworkSpec((4, 5, 3), hidden, output, loss)
        data = synthetic(spec)
        params = Population.create(spec, 1, dtype=torch.float64).params
        scale = torch.tensor(SCALES, dtype=torch.float64)
        some = slice(len(SCALES))
        yield Batch(spec, params, data.inputs[None, some] * scale[:, None], data.targets[None, some])


def faulty(spec: NetworkSpec) -> NetworkSpec:
    """The specification with a slope that is OFF: the last hidden layer's, or the loss's if there is none."""
    *hidden, _ = spec.activations
    if hidden:
        rule = ACTIVATIONS[hidden[-1]]

        def planted_activation(net: Tensor) -> Tensor:
            return rule.value(net)

        wrong = Activation(planted_activation, lambda net, out: rule.slope(net, out) * OFF)
        return replace(spec, hidden=(*hidden[:-1], wrong))
    loss = LOSSES[spec.loss]

    def planted_loss(out: Tensor, target: Tensor, *given: Any, **hyper: Tensor) -> Any:
        found = loss.value(out, target, *given, **hyper)
        return (found[0], found[1] * OFF) if loss.classes else found

    def slope(out: Tensor, target: Tensor, **hyper: Tensor) -> Tensor:
        assert loss.slope is not None
        return loss.slope(out, target, **hyper) * OFF

    return replace(spec, loss=loss._replace(value=planted_loss, slope=None if loss.classes else slope))


def _autograd(batch: Batch, n: int) -> Numbers:
    """The loss and the gradient of network n by torch's functions and autograd."""
    parts, switches = leaves(batch.spec, batch.params[n]), batch.switches(n)
    hyper = {name: each[n] if each.ndim == 2 else float(each[n]) for name, each in batch.hyper.items()}
    out = reference_out(batch.spec, parts, batch.inputs[n], batch.masks(n))
    weight = None if batch.weight is None else batch.weight[n]
    loss = reference_loss(batch.spec.loss, out, batch.targets[n], weight, **hyper)
    for each in parts[::2]:  # only weights, not biases
        loss = loss + switches.get("l1", 0.0) * each.abs().sum() + switches.get("l2", 0.0) / 2 * each.square().sum()
    loss.backward()
    if "clip_value" in switches:
        clip_grad_value_(parts, switches["clip_value"])
    if "clip_norm" in switches:
        clip_grad_norm_(parts, switches["clip_norm"])
    return {"loss": loss.detach(), "gradient": reference_row(parts)}


def differences(batch: Batch, wrong: bool) -> Found:
    """The slope of the loss along random directions, from the gradient and from losses alone. A direction is left out
    if half the step gives another slope: there, an activation or the loss has a kink."""
    source, (loss, grad) = torch.Generator().manual_seed(1), batch.ours(faulty(batch.spec) if wrong else batch.spec)
    size = (DIGITS * loss.abs()).clamp(min=1)
    ours: list[list[Tensor]] = [[] for _ in loss]
    expected: list[list[Tensor]] = [[] for _ in loss]
    for _ in range(DIRECTIONS):
        way = torch.randn(batch.params.shape, generator=source, dtype=torch.float64)
        for at in batch.spec.layout if not batch.spec.train_bias else ():
            way[:, at.bias] = 0  # a frozen bias has a gradient of 0 by definition
        way /= way.norm(dim=1, keepdim=True)
        slope, near = (_slope(batch, way, step) / size for step in (STEP, STEP / 2))
        smooth = (slope - near).abs() <= 0.1 * DIFFERENCE * slope.abs().clamp(min=SMALL)
        for n in smooth.nonzero().flatten().tolist():
            ours[n].append((grad[n] * way[n]).sum() / size[n])
            expected[n].append(slope[n])
    kept = [each for some in expected for each in some]
    if len(kept) < DIRECTIONS * len(loss) / 2:
        raise BlindError("activations or losses have kinks between most pairs of losses, or losses overflow")
    if max(abs(float(each)) for each in kept) < 10 * SMALL * DIFFERENCE / (OFF - 1):
        raise BlindError("the loss is so much larger than its slopes that its differences have no digits")
    pairs = [({"slope": torch.stack(one)}, {"slope": torch.stack(other)}) for one, other in zip(ours, expected) if one]
    return compare([one for one, _ in pairs], [other for _, other in pairs])


def _slope(batch: Batch, way: Tensor, step: float) -> Tensor:
    """The slope of the loss along `way`, by a central difference."""
    ahead, behind = (batch.ours(params=batch.params + sign * way)[0] for sign in (step, -step))
    return (ahead - behind) / (2 * step)


def by_autograd(batches: Iterable[Batch]) -> Callable[[bool], Found]:
    """Checks the loss and every number of the gradient against autograd's, for all batches."""
    each = [(batch, [_autograd(batch, n) for n in range(len(batch.params))]) for batch in batches]

    def check(wrong: bool) -> Found:
        mine: list[Numbers] = []
        for batch, _ in each:
            loss, grad = batch.ours(faulty(batch.spec) if wrong else batch.spec)
            mine += ({"loss": loss[n], "gradient": grad[n]} for n in range(len(loss)))
        return compare(mine, [numbers for _, theirs in each for numbers in theirs])

    return check


def rows(subject: Subject) -> Iterator[Row]:
    """The promises of the gradient."""
    own, right = [Batch(*each) for _, each in starts(subject)], "the gradient is right"
    torchs = "this package and torch.autograd, float64"
    losses = "this package and differences of the loss along random directions, float64"
    yield checked(Row(right, torchs, PLANTED, AUTOGRAD), by_autograd(own))
    slopes = Row(right, losses, PLANTED, DIFFERENCE)
    yield checked(slopes, lambda wrong: reduce(Found.beside, [differences(batch, wrong) for batch in own]))
    yield checked(Row("every rule's gradient is right", torchs, PLANTED, AUTOGRAD), by_autograd(tables()))
