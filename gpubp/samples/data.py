"""Dataset: samples, shared by all networks or separate for each, and their order.

The order is not stored: the sample in slot j of step t of a network is a pure function of (seed, id, t, j),
by the permutation of maths/rng.py. Every batch is full, every sample is used equally often, and a batch may cross
passes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ..errors import DataError, ShapeError
from ..line import counted
from ..maths.rng import AT_ONCE, EVERYBODY, LARGEST, samples, walks
from ..raw.preparation import Preparation
from ..system import arrays, gpus
from ..system.ambient import neutral
from .divisible import Divisible
from .folds import Parts, selected

TENSORS = ("inputs", "targets", "sample_weight", "rows", "sizes")  # of a Dataset; some may be None
HELD = (*TENSORS, "starts", "spread")  # and what is computed from them


class Batch(NamedTuple):
    """A minibatch per network: inputs (N, B, I), targets (N, B, O) or (N, B), weight (N, B) or None.

    N is 1 if all networks have the same samples.
    """

    inputs: Tensor
    targets: Tensor
    weight: Tensor | None


class Dataset(Divisible):
    """Samples to train on: tensors, arrays, data frames or lists, read by position, not by index labels.

    inputs: (M, I), shared by all networks, or (N, M, I), separate for each. targets: (M, O), class numbers (M,), or
    floats (M,), the column of one output; with N in front if the inputs have it. rows: the samples of each network, as
    a mask of M truth values or as any number of indices, which may repeat (a bootstrap) but not be negative (pandas' -1
    means missing); by default all. sample_weight: (M,) or (N, M), 0 or more; a mask counts as 1 and 0.
    preparation: of the raw columns, saved with a run, for load(). entities: the names from by(). lengths: the fewest
    and the most samples of a network. The attribute rows holds one network's samples after another's: sizes (N,) of
    them, from starts (N,). spread: evaluate.spread, once computed. Floats keep their precision until training converts
    them to the networks' dtype; whole numbers are refused if that dtype cannot hold them exactly.

    Raises ShapeError or DataError if these do not match, are empty, or hold NaN or infinity.
    """

    @neutral()
    def __init__(
        self,
        inputs: Tensor | Sequence[Any],
        targets: Tensor | Sequence[Any],
        rows: Iterable[Tensor | Sequence[int] | Sequence[bool]] | None = None,
        sample_weight: Tensor | Sequence[Any] | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        inputs, targets = arrays.tensor("inputs", inputs), arrays.tensor("targets", targets)
        if targets.is_floating_point() and targets.ndim == inputs.ndim - 1:
            targets = targets[..., None]
        given = f"inputs {tuple(inputs.shape)}, targets {tuple(targets.shape)}"
        if inputs.ndim not in (2, 3) or targets.shape[: inputs.ndim - 1] != inputs.shape[:-1]:
            raise ShapeError(f"{given}: (M, I) and (M, O) or class numbers (M,) expected, or each with N in front")
        if not inputs.numel() or not targets.numel():
            raise DataError(f"{given}: the data are empty; one or more samples with one or more inputs expected")
        self.whole = {name for name, each in (("inputs", inputs), ("targets", targets)) if not each.is_floating_point()}
        inputs = arrays.floats("inputs", inputs)
        targets = arrays.floats("targets", targets) if targets.ndim == inputs.ndim else targets
        targets = targets if targets.is_floating_point() else targets.long()
        for name, each in (("inputs", inputs), ("targets", targets)):
            arrays.finite(name, each)
        self.inputs, self.targets = inputs.contiguous(), targets.contiguous()
        self.own, self.preparation = inputs.ndim == 3, preparation
        if self.samples >= LARGEST:
            raise DataError(f"{given}: fewer than {LARGEST} samples expected")
        self.sample_weight = None if sample_weight is None else self._weights(sample_weight)
        self.lengths = self.samples, self.samples
        if rows is not None:
            parts = selected(rows, self.samples)
            if self.own and len(parts) != len(inputs):
                raise ShapeError(f"rows of {counted(len(parts), 'network')}, {given}: equal numbers expected")
            self._select(Parts.of(parts))

    def __len__(self) -> int:
        return self.samples

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in TENSORS if name not in ("rows", "sizes"))
        tensors = ", ".join(f"{name} {tuple(each.shape)} {each.dtype}" for name, each in given if each is not None)
        few, most = self.lengths
        each = f"{few} to {most}" if few < most else f"{few}"
        some = "" if self.sizes is None else f", {each} for each of {len(self.sizes)}"
        return f"Dataset({counted(self.samples, 'sample')}{some}: {tensors})".replace("torch.", "")

    @property
    def samples(self) -> int:
        """M."""
        return self.inputs.shape[-2]

    @property
    def each(self) -> dict[str, Tensor]:
        """The tensors that differ between networks, by name, with N in front."""
        each = {"inputs": self.own, "targets": self.own}
        each |= dict.fromkeys(("sizes", "starts"), self.rows is not None)
        each["sample_weight"] = self.sample_weight is not None and self.sample_weight.ndim == 2
        each["spread"] = self.spread is not None and any(each.values())
        return {name: getattr(self, name) for name in HELD if each.get(name)}

    @property
    def networks(self) -> int | None:
        """The N of the data, or None if they fit any number of networks."""
        return next((len(each) for each in self.each.values()), None)

    def _weights(self, given: Any) -> Tensor:
        weight = arrays.tensor("sample_weight", given)
        shape = tuple(weight.shape)
        allowed = [(self.samples,)] + ([(len(self.inputs), self.samples)] if self.own else [])
        if shape not in allowed and (self.own or len(shape) != 2 or shape[1] != self.samples):
            raise ShapeError(f"sample_weight {shape}: ({self.samples},), or N of these in front, expected")
        arrays.finite("sample_weight", weight)
        if not weight.is_floating_point():
            self.whole.add("sample_weight")
        if bool((weight < 0).any()):
            raise DataError(f"sample_weight holds {float(weight.min()):g}; 0 or more expected")
        if not bool((weight.sum(-1) > 0).all()):
            raise DataError("sample_weight is 0 for all samples of a network; one or more above 0 expected")
        return arrays.floats("sample_weight", weight).contiguous()

    def fingerprint(self) -> str:
        """SHA-256 of all tensors, to check that a run resumes with the same data."""
        digest = hashlib.sha256()
        for name in TENSORS:
            tensor = getattr(self, name)
            digest.update(f"{name} {None if tensor is None else (tensor.dtype, tuple(tensor.shape))};".encode())
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().data)
        if self.entities is not None:
            digest.update(repr(self.entities).encode())
        return digest.hexdigest()

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same data on `device` as `dtype`; self if nothing changes."""
        held = {name: tensor for name in HELD if (tensor := getattr(self, name)) is not None}
        floats = {name: tensor for name, tensor in held.items() if name != "spread" and tensor.is_floating_point()}
        same = all(tensor.dtype == dtype for tensor in floats.values())
        if self.inputs.device == device and same:
            return self
        other = self._with(
            {name: tensor.to(device, dtype if name in floats else None) for name, tensor in held.items()}
        )
        for name in floats:
            arrays.finite(f"as {dtype}, {name}", getattr(other, name))
        for name in self.whole:
            arrays.held(name, getattr(self, name), getattr(other, name))
        if other.sample_weight is not None:
            sums = other.sample_weight.sum(-1)
            if not bool((sums > 0).all()):
                raise DataError(f"sample_weight of a network is 0 everywhere as {dtype}; larger weights expected")
            if not bool(sums.isfinite().all()):
                raise DataError(f"sample_weight of a network has an infinite sum as {dtype}; smaller weights expected")
        return other if same else other._with({"spread": None})

    def nbytes(self, count: int) -> int:
        """Bytes of the data of `count` networks."""
        each = {name: tensor for name, tensor in self.each.items() if name in TENSORS}
        rest = (getattr(self, name) for name in TENSORS if name not in each)
        shared = sum(int(tensor.nbytes) for tensor in rest if tensor is not None)
        return shared + count * sum(int(tensor[0].nbytes) for tensor in each.values())

    def part(self, which: slice | Tensor) -> Self:
        """The data of the networks `which`, views for a slice, copies for indices (K,)."""
        entities = None
        if self.entities is not None:
            entities = self.entities.take(which if isinstance(which, slice) else which.tolist())
        return self._with({"entities": entities} | {name: tensor[which] for name, tensor in self.each.items()})

    def take(self, position: Tensor) -> Self:
        """The data of the networks at `position` (N,), in that order; itself if they fit any network."""
        if self.networks is None:
            return self
        first = int(position[0])
        if torch.equal(position, torch.arange(first, first + len(position))):
            return self.part(slice(first, first + len(position)))
        return self.part(position)

    def alone(self, position: Tensor) -> Self:
        """The data of the networks at `position` (N,), as if there were no others."""
        found = self.take(position)
        return found if found.rows is None else found.of(found.parts, found.entities)

    def room(self, count: int, device: torch.device) -> Self:
        """Buffers on `device` for the data of `count` networks, to be filled by load(); shared tensors are copied."""
        each = {name: tensor.new_zeros(count, *tensor.shape[1:], device=device) for name, tensor in self.each.items()}
        rest = {name: getattr(self, name) for name in HELD if name not in each}
        return self._with(each | {name: tensor.to(device) for name, tensor in rest.items() if tensor is not None})

    def load(self, other: Self) -> None:
        """Overwrite the first networks' data with those of `other`, which has as many networks or fewer."""
        for name, theirs in other.each.items():
            getattr(self, name)[: len(theirs)].copy_(theirs, non_blocking=True)

    def pinned(self) -> Self:
        """The same, with separate tensors in pinned memory."""
        return self._with({name: gpus.pinned(tensor) for name, tensor in self.each.items()})

    def size(self, position: Tensor) -> Tensor:
        """The numbers of samples of the networks at `position` (N,), (N,) int64."""
        return torch.full_like(position, self.samples) if self.sizes is None else self.sizes[position]

    def order(
        self, seed: int, ids: Tensor, position: Tensor, step: Tensor, count: int, batch: int, shuffle: str,
        waiting: bool = True,
    ) -> Tensor:  # fmt: skip
        """The samples of the next `count` steps, (N, count B), or (1, count B) if all networks have the same.

        ids, position: (N,), a network's id and its position in this dataset; step: (N,) or (1,), its next step.
        shuffle: "network", "shared" or "none", as in TrainConfig. waiting: whether numbers may be read back, which
        waits for a GPU.
        """
        first, count = step * batch, count * batch
        keyed = ids if shuffle == "network" else torch.full_like(ids[:1], EVERYBODY)
        size: Tensor | int = self.samples if self.sizes is None else self.sizes[position]
        networks = max(len(each) for each in (keyed, first, size) if isinstance(each, Tensor))
        most = networks if waiting else -(-networks // self.rounds(networks, count))

        def part(each: Tensor, begun: int) -> Tensor:
            return each if len(each) == 1 else each[begun : begun + most]

        places = [
            samples(
                seed, part(keyed, begun), part(first, begun), count,
                size if isinstance(size, int) else part(size, begun), shuffle != "none",
                None if waiting else self.lengths,
            )
            for begun in range(0, networks, most)
        ]  # fmt: skip
        place = torch.cat(places) if len(places) > 1 else places[0]
        return place if self.rows is None else self.row(position, place)

    def rounds(self, networks: int, count: int) -> int:
        """The number of parts in which a GPU draws `count` samples per network, to limit its workspace."""
        return -(-networks // max(1, AT_ONCE // walks(count, self.lengths)))

    def row(self, position: Tensor, place: Tensor) -> Tensor:
        """The samples at `place` (N, K) in the rows of the networks at `position` (N,)."""
        assert self.rows is not None
        assert self.starts is not None
        return self.rows.take(self.starts[position][:, None] + place)

    def batch(self, index: Tensor, position: Tensor) -> Batch:
        """The samples `index` (N, B) of the networks at `position` (N,); index (1, B) is for all of them."""
        inputs, targets = (self._pick(each, self.own, index, position) for each in (self.inputs, self.targets))
        weight = self.sample_weight
        if weight is not None:
            weight = self._pick(weight, weight.ndim == 2, index, position)
        return Batch(inputs, targets, weight)

    def _pick(self, table: Tensor, separate: bool, index: Tensor, position: Tensor) -> Tensor:
        if separate:
            index, table = index + (position * self.samples)[:, None], table.flatten(0, 1)
        picked = table.index_select(0, index.reshape(-1))
        return picked.view(*index.shape, *table.shape[1:])
