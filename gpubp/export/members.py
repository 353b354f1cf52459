"""Members: the networks that a file of another format holds, and what every format needs of them.

Refused: networks of several entities in one file, and losses with an inverse link of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from ..errors import ConfigError, SpecError
from ..line import counted
from ..maths import activations, losses
from ..maths.losses import LOSSES
from ..maths.spec import NetworkSpec
from ..raw.columns import Column, tensors
from ..raw.entities import told
from ..raw.preparation import Label, Preparation
from ..raw.tables import listed

Array = npt.NDArray[Any]

LINKS: Mapping[Any, str] = {  # inverse links by the names of activations, and two that are not activations
    losses.same: "identity",
    losses.rate: "exp",
    losses.margin: "hard_tanh",
    losses.probabilities: "softmax",
    activations.sigmoid: "sigmoid",
}


class Group(NamedTuple):
    """Networks of one specification: params (k, P); ids (k,); place (k,), their places among all members."""

    spec: NetworkSpec
    params: Tensor
    ids: Tensor
    place: Tensor
    seed: int

    def layers(self) -> list[tuple[Array, Array | None]]:
        """Per layer the weight (k, I, O), and the bias (k, 1, O) or None."""
        found = []
        for weight, bias in self.spec.layers(self.params.detach().cpu()):
            wide = None if self.spec.bias == "none" else bias[:, None].expand(-1, 1, weight.shape[2]).numpy()
            found.append((weight.numpy(), wide))
        return found

    @property
    def link(self) -> str:
        """The name in LINKS of the loss's inverse link. Raises SpecError for another function."""
        function = LOSSES[self.spec.loss].inverse_link
        if function not in LINKS:
            raise SpecError(
                f"loss {self.spec.loss!r} predicts by {function.__name__}, a function of its own, which files of other "
                f"formats cannot hold; one of {', '.join(LINKS.values())} expected"
            )
        return LINKS[function]

    def functions(self, table: Mapping[str, Any], where: str) -> list[Any]:
        """The rows of its activations in a format's `table`, called `where`. Raises SpecError if it lacks one."""
        for name in self.spec.activations:
            if str(name) not in table:
                raise SpecError(f"activation {name!r} has no row in {where}; add one: {where}[{str(name)!r}] = ...")
        return [table[str(name)] for name in self.spec.activations]


class Scaling(NamedTuple):
    """What members do to inputs and expected targets: offset and factor, float64, (1, width), or (K, width) if they
    differ between members."""

    offset: Array
    factor: Array
    target_offset: Array
    target_factor: Array


@dataclass(frozen=True)
class Members:
    """K networks. rows: their rows in the results. preparation, position (K,): as in Model. classes: the labels, or ()
    for numbers. results: the results table, a row per member, or None."""

    groups: Sequence[Group]
    rows: Sequence[int]
    preparation: Preparation | None
    position: Tensor
    classes: tuple[Label, ...]
    results: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def task(self) -> str:
        """The kind of prediction, as in Preparation."""
        if self.preparation is not None:
            return self.preparation.task
        return "classes" if self.classes else "numbers"

    @property
    def logits(self) -> bool:
        """Whether outs are logits, from which a member makes probabilities."""
        return LOSSES[self.groups[0].spec.loss].takes == "logit"

    @property
    def flat(self) -> bool:
        """Whether predictions are (M,)."""
        return self.preparation is not None and len(self.preparation.target_columns) == 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of raw samples; () without a preparation."""
        return () if self.preparation is None else self.preparation.columns

    @property
    def width(self) -> int:
        """I."""
        return self.groups[0].spec.widths[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the networks' numbers."""
        return np.dtype(str(self.groups[0].params.dtype).removeprefix("torch."))

    def check_entities(self) -> None:
        """Raise ConfigError for members of several entities, which do not answer the same samples."""
        entities = None if self.preparation is None else self.preparation.entities
        whose = self.position.unique().tolist()
        if entities is not None and len(whose) > 1:
            raise ConfigError(
                f"networks of {told(entities, whose)}: this format answers every sample by all of its networks; rows "
                "of one entity's networks, or safetensors, which holds those of all, expected"
            )

    @cached_property
    def scaling(self) -> Scaling | None:
        """None without a preparation."""
        if self.preparation is None:
            return None
        whose = self.position.unique()
        inputs = [column for column in self.columns for _ in column.categories or (None,)]
        parts = (*tensors(inputs), *tensors(self.preparation.target_columns))
        alike = len(whose) == 1
        own = [part if len(part) == 1 else part[whose if alike else self.position] for part in parts]
        return Scaling(*(part.numpy() for part in own))

    def scaling_of(self, group: Group) -> Scaling | None:
        """The scaling of a group's members: (width,), or (k, 1, width)."""
        if self.scaling is None:
            return None
        place = group.place.numpy()
        return Scaling(*(each[0] if len(each) == 1 else each[place][:, None] for each in self.scaling))

    @property
    def about(self) -> str:
        """A description in a few words, without names from data."""
        widths = dict.fromkeys("-".join(map(str, each.spec.widths)) for each in self.groups)
        return f"{counted(len(self), 'network')} of {listed(widths, 3)}"
