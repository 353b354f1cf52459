"""The loss and the gradient of a step of eager, with dropout, penalties and clipping, in float64, against
torch.autograd's. The factors of dropout are taken from eager; that they are random is not part of the promise."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from ..engines.block import Block
from ..maths.numerics import kernel_widths
from ..maths.spec import NetworkSpec
from ..samples.data import Batch as Samples
from ..state import TrainState
from .comparing import BlindError, Found, Row, checked
from .gradients import AUTOGRAD, PLANTED, Batch, by_autograd, starts
from .subject import Subject

CLIPS = ("clip_value", "clip_norm")
PENALTIES = ("l1", "l2")


def row(subject: Subject) -> Row:
    """The promise about the gradient of a step."""
    own = [Step(*each, state=state) for state, each in starts(subject)]
    names = [name for name in ("dropout", *PENALTIES, *CLIPS) if any(name in step.state.hyper for step in own)]
    compared = f"a step of eager{', with ' if names else ''}{', '.join(names)}, and torch.autograd, float64"

    def check(wrong: bool) -> Found:
        if any(len(step.spec.activations) == 1 and step.switches(0).keys() & set(CLIPS) for step in own):
            raise BlindError("clipping hides the size of the gradient of networks without a hidden layer")
        if all(step.at_the_bound for step in own):
            raise BlindError("clip_value is smaller than every gradient, and hides their sizes")
        return by_autograd(own)(wrong)

    return checked(Row("the gradient is right", compared, PLANTED, AUTOGRAD), check)


@dataclass(frozen=True)
class Step(Batch):
    """A minibatch of the networks in `state`."""

    state: TrainState = field(kw_only=True)

    def ours(self, spec: NetworkSpec | None = None, params: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss and the gradient of each network in eager's step."""
        block = Recorded(self.state, spec or self.spec)
        block.step(Samples(self.inputs, self.targets, self.weight))
        return block.loss[: len(self.params)], block.gradients[: len(self.params)]

    @property
    def at_the_bound(self) -> bool:
        """Whether clip_value cuts every gradient that is not 0."""
        if "clip_value" not in self.state.hyper:
            return False
        _, gradient = self.ours()
        return bool(((gradient == 0) | (gradient.abs() >= self.state.hyper["clip_value"])).all())

    @cached_property
    def factors(self) -> list[Tensor]:
        """Dropout's factors for all networks, (N, B, O) for each hidden layer."""
        return Recorded(self.state, self.spec).masks(self.inputs.shape[1])

    def masks(self, n: int) -> list[Tensor]:
        """Dropout's factors for network n."""
        return [each[n, :, :width] for each, width in zip(self.factors, self.spec.widths[1:])]

    def switches(self, n: int) -> dict[str, float]:
        """l1, l2, clip_value and clip_norm of network n, as far as they are on."""
        return {name: float(self.state.hyper[name][n]) for name in (*PENALTIES, *CLIPS) if name in self.state.hyper}


class Recorded(Block):
    """A block that records the gradients of its step and updates nothing."""

    def __init__(self, state: TrainState, spec: NetworkSpec) -> None:
        super().__init__(state, kernel_widths(spec.widths, state.recipe.batch_size))
        self.spec, self.gradients = spec, state.loss.new_zeros(len(self.now), spec.size)

    def update_layer(self, number: int, grads: Sequence[Tensor]) -> None:
        """Keep the gradients, without padding."""
        at = self.spec.layout[number]
        self.gradients[:, at.weight] = grads[0][:, : at.inputs, : at.outputs].flatten(1)
        if len(grads) > 1:
            self.gradients[:, at.bias] = grads[1][:, : at.outputs]
