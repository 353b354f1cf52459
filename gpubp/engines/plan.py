"""Where a kernel keeps its numbers, as data: a network's arrays, the pitch of their rows, and their places.

constants.py prints them, the kernel adds pointers, chip.py adds up sizes. Nothing here changes a bit. Places:
"registers" of a GPU's thread, "shared" and "global" memory of a GPU, and "memory" of a CPU.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from . import stream
from .key import Key
from .layout import Kind, Layout, Tile, products, tile

WAYS = 8  # partial sums of an evaluation, each over every eighth sample
BYTES = {"double": 8, "int64_t": 8, "uint32_t": 4, "int32_t": 4, "bool": 1}  # of an element


class Needs(NamedTuple):
    """What a kernel's rules need, according to their translation.

    hyper: the hyper-parameters that the kernel reads, in its order. coefficients: how many numbers an update takes.
    nets: whether a slope is a function of the net, not of the out alone. inverse_link: whether R2 compares targets with
    a function of the outs. coefficients_change: whether these, or columns, change every step. coefficients_use_step:
    whether they depend on the number of the step.
    """

    hyper: tuple[str, ...]
    coefficients: int
    nets: bool
    inverse_link: bool
    coefficients_change: bool
    coefficients_use_step: bool


class Array(NamedTuple):
    """`numbers` elements of memory, 0 if the kernel does not need them; what: their shape and meaning."""

    name: str
    numbers: int
    what: str
    place: str


class Field(NamedTuple):
    """An array of numbers of type `kind`, placed by the kernel's compiler."""

    kind: str
    name: str
    dims: tuple[int, ...]
    what: str


@dataclass(frozen=True)
class Plan:
    """The memory of a kernel."""

    key: Key
    layout: Layout
    needs: Needs

    # ---- samples

    @property
    def batch(self) -> int:
        """Samples of a step; in an evaluation, those that go through a network together."""
        size = self.key.recipe.batch_size
        return size if self.key.trains else self.layout.chunk or size

    @property
    def chunk(self) -> int:
        """Samples of a batch that go through a network together."""
        return self.layout.chunk or self.batch

    @property
    def chunked(self) -> bool:
        """Whether a batch is split into chunks."""
        return self.chunk < self.batch

    @property
    def orders(self) -> int:
        """The number of orders in which a group takes its samples: one per network, or 1 for all."""
        return self.layout.networks if self.key.samples.own else 1

    @property
    def gathers(self) -> bool:
        """Whether samples are copied to where products read them."""
        return self.orders > 1 or self.layout.general or self.layout.kind in (Kind.GPU_BLOCK, Kind.GPU_WIDE)

    # ---- layers

    @property
    def widths(self) -> tuple[int, ...]:
        """The layers' widths, the inputs first."""
        return self.key.spec.widths

    def padded(self, width: int) -> int:
        """`width` rounded up to whole v."""
        return -(-width // self.layout.entries_per_v) * self.layout.entries_per_v

    @cached_property
    def pitch(self) -> list[int]:
        """For each width, entries from one row of a matrix to the next. On a CPU, never a multiple of 1 KB: such rows
        share few sets of the cache, and 64 outputs with lanes as networks lost up to a quarter of the rate."""
        if self.layout.threads:
            return [self.layout.pitch(width) if self.layout.kind.block else width for width in self.widths]
        size = self.itemsize * self.layout.networks
        padded = [self.padded(width) for width in self.widths]
        return [width if width * size % 1024 else width + self.layout.entries_per_v for width in padded]

    @property
    def widest(self) -> int:
        """The largest pitch of outs."""
        return max(self.pitch[1:])

    @property
    def biases(self) -> list[int]:
        """How many biases each layer has."""
        return [layer.bias.stop - layer.bias.start for layer in self.key.spec.layout]

    @property
    def rows(self) -> list[int]:
        """The start of each layer in a row of parameters, and the row's end."""
        return [*(layer.weight.start for layer in self.key.spec.layout), self.key.spec.size]

    @cached_property
    def weights(self) -> list[int]:
        """The start of each layer in the kernel, with a weight's rows padded, and the end of the last."""
        aligned = self.layout.aligned
        sizes = (aligned(i * o) + aligned(bias) for i, o, bias in zip(self.widths, self.pitch[1:], self.biases))
        return [*itertools.accumulate(sizes, initial=0)]

    @cached_property
    def outs(self) -> list[int]:
        """The start of each layer's outs, and the end of the last."""
        return [*itertools.accumulate((self.layout.aligned(self.chunk * pitch) for pitch in self.pitch[1:]), initial=0)]

    # ---- arrays

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.key.dtype.itemsize

    @property
    def slots(self) -> int:
        """How many slots the optimizer has."""
        return len(self.key.recipe.rule.slots)

    @property
    def targets(self) -> int:
        """Numbers of a sample's target."""
        return 1 if self.key.loss.classes else self.widths[-1]

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of kernel/memory.h's Memory, in order; those that a kernel does not need are empty."""
        key, kind = self.key, self.layout.kind
        place = "shared" if kind.block else "registers" if kind == Kind.GPU_THREAD else "memory"
        trains, hyper, chunk, batch = key.trains, key.recipe.hyper, self.chunk, self.batch
        params, outs, widest = self.weights[-1], self.outs[-1], self.widest
        held = kind == Kind.GPU_WIDE  # gradients, by threads (gradients.h)
        chunked = (self.chunked or self.layout.general) and not held
        transposed = max((o * pitch for o, pitch in zip(self.widths[2:], self.pitch[1:])), default=0)
        layer_sums = (len(self.widths) - 1) * widest if chunked and key.spec.bias == "layer" else 0
        numbers = (
            ("params", params, "(PADDED_P): the parameters"),
            ("slots", self.slots * params, "(SLOTS, PADDED_P): of the optimizer"),
            ("grad", params if chunked or "clip_norm" in hyper else 0,
             "(PADDED_P): over the chunks so far, or to clip"),
            ("x", chunk * self.pitch[0] if self.gathers else 0, "(CHUNK, I): inputs, with GATHER"),
            ("y", chunk * self.targets if self.gathers else 0, "(CHUNK, TARGETS): targets, with GATHER"),
            ("outs", outs, "(CHUNK, O) of each layer"),
            ("nets", outs if self.needs.nets else 0, "(CHUNK, O) of each layer, with KEEP_NETS"),
            ("dropped", outs if "dropout" in hyper else 0, "(CHUNK, O) of each layer: its outs after dropout"),
            ("masks", outs if "dropout" in hyper else 0, "(CHUNK, O) of each layer: what dropout multiplies them by"),
            ("delta", chunk * (self.pitch[-1] if held else widest) if trains else 0,
             "(CHUNK, O): of the layer that backward() is at"),
            ("delta_below", chunk * widest if trains and not held else 0,
             "(CHUNK, I): of the layer below; the two take turns"),
            ("transposed", transposed if trains and kind in (Kind.CPU_OUTPUTS, Kind.CPU_TEAM) else 0,
             "(O, I): a weight transposed"),
            ("column_sums", widest if trains and (not held or key.spec.bias == "layer" or self.layout.tf32) else 0,
             "(O): of a matrix with O columns; without it, where the outs are"),
            ("delta_sums", layer_sums,
             "(LAYERS, MAX_PITCH): of deltas over the chunks so far, for the one bias of a layer"),
            ("error", batch, "(BATCH): each sample's part of the loss"),
            ("share", batch if trains and key.weighted else 0, "(BATCH): how much each sample counts (loss.h)"),
            ("hits", 0 if trains or key.loss.metric == "r2" else batch,
             "(BATCH): how many outs of each sample are right"),
            ("class_weight", self.widths[-1] if key.class_weight else 0, "(O): of each class"),
        )  # fmt: skip
        return tuple(Array(*each, "global" if stream.is_far(*each[:2], self.layout) else place) for each in numbers)

    @cached_property
    def numbers(self) -> int:
        """Entries of Memory."""
        return sum(self.layout.aligned(array.numbers) for array in self.arrays if array.place != "global")

    @cached_property
    def sums(self) -> dict[str, int]:
        """The start of each kind of an evaluation's partial sums, and the end of the last, SUMS. Empty in training."""
        if self.key.trains:
            return {}
        r2, weight = self.key.loss.metric == "r2", self.key.samples.weight > 0
        ways = {"ERROR": WAYS, "HITS": WAYS * (not r2), "COUNTED": WAYS * self.key.weighted, "WEIGHT": WAYS * weight,
                "SQUARES": self.widths[-1] * self.r2_ways * r2}  # fmt: skip
        return dict(zip([*ways, "SUMS"], itertools.accumulate(ways.values(), initial=0)))

    @property
    def r2_ways(self) -> int:
        """Partial sums of R2, for each output."""
        return max(1, WAYS // self.widths[-1])

    @cached_property
    def group(self) -> tuple[Field, ...]:
        """The arrays of the kernel's Group, in order: all of a group's networks except the entries of Memory."""
        networks, columns = self.layout.networks, len(self.key.recipe.rule.columns)
        hypers, coefficients = len(self.needs.hyper), self.needs.coefficients
        fields = (
            Field("double", "hyper", (hypers + 1, networks), "hyper-parameters"),
            Field("double", "network_slots", (columns + 1, networks), "numbers that the optimizer keeps"),
            Field("double", "schedule_step", (networks,), "the number of the step"),
            Field("double", "schedule_end", (networks,), "and of the last of the training"),
            Field("real", "hyper_real", (hypers + 1, networks), "hyper as real"),
            Field("real", "coefficient", (max(coefficients, 1), networks), "what this step's update takes"),
            Field(
                "bool", "same_coefficients", (), "whether all networks have the same; then only the first's are current"
            ),
            Field("uint32_t", "id", (networks,), "Population.ids, by which random numbers are drawn"),
            Field("uint32_t", "dropout_step", (networks,), "the number of the step"),
            Field("int64_t", "samples_at", (networks,), "where a network's own samples begin in Job's,"),
            Field("int64_t", "subset_at", (networks,), "and its subset in Job.subset"),
            Field("int32_t", "index", (self.batch, self.orders), "the samples of this step"),
        )
        if self.key.trains:
            return fields
        size = Field("int64_t", "size", (networks,), "how many samples a network has")
        return *fields, size, Field("double", "sums", (self.sums["SUMS"], networks), "partial sums of an evaluation")

    @cached_property
    def tiles(self) -> dict[tuple[int, int, int], Tile]:
        """The tile of every product (m, k) @ (k, n), n counted in v, by m, n and k."""
        biases = [(each, replace(self.layout, tf32=0)) for each, kind in self.products() if kind == "bias"]
        others = [(each, self.layout) for each, kind in self.products() if kind != "bias" and not self.layout.streamed]
        strips = {each: stream.of_thread(each, self.layout) for each in self.block_tiles.values()}
        return {
            **{shape: tile(*shape, layout, self.itemsize) for shape, layout in (*biases, *others)},
            **{(*each, stream.DEPTH): found for each, found in strips.items() if found},
        }

    def products(self, *chunks: int) -> list[tuple[tuple[int, int, int], str]]:
        """layout.products(), for all chunks if none is given."""
        chunks = chunks or (self.chunk, self.batch % self.chunk or self.chunk)
        padded = [self.padded(width) // self.layout.entries_per_v for width in self.widths]
        return [*products(self.widths, padded, dict.fromkeys(chunks), self.key.trains)]

    @property
    def group_bytes(self) -> int:
        """Bytes of Group."""
        at, bytes_of = 0, {**BYTES, "real": self.itemsize}
        for field in self.group:
            size = bytes_of[field.kind]
            at = -(-at // size) * size + size * math.prod(field.dims)
        return -(-at // 64) * 64

    # ---- of a GPU

    @property
    def words(self) -> int:
        """If a thread is a network: the 4-byte registers that its numbers take."""
        return self.numbers * self.itemsize // 4 + 2 * self.sums.get("SUMS", 0)

    @property
    def far(self) -> int:
        """Entries of a network in global memory."""
        entries = sum(self.layout.aligned(each.numbers) for each in self.arrays if each.place == "global")
        return -(-(entries * self.itemsize + self.group_far * self.group_bytes) // 64) * 64 // self.itemsize

    @property
    def group_far(self) -> bool:
        """Whether Group, with the samples of a large batch, begins the part in global memory."""
        return self.layout.streamed and self.group_bytes > 32 * stream.FEW

    @cached_property
    def block_tiles(self) -> dict[tuple[int, int, int], tuple[int, int]]:
        """If matrices are streamed: rows, and columns in v, that a block computes at once, for each product."""
        shapes = [shape for shape, kind in self.products() if kind != "bias" and self.layout.streamed]
        return {shape: stream.block_tile(shape, self.layout) for shape in shapes}

    @cached_property
    def stage(self) -> int:
        """Entries of a slot in the ring: those of the largest pair of strips."""
        streamed = [(self.block_tiles[shape], kind) for shape, kind in self.products() if kind != "bias"]
        return max(stream.entries(*each, self.layout) for each in streamed)

    @property
    def row_pitch(self) -> int:
        """If a thread is a network: elements from one network's row in shared memory to the next; odd, so that each
        thread reads from a bank of its own."""
        return self.rows[-1] | 1

    @property
    def team_pitch(self) -> int:
        """If a block is one network: its bytes. If it is several: bytes from one network to the next, an odd multiple
        of 64, so that the numbers of half a warp begin in different banks."""
        size = (0 if self.group_far else self.group_bytes) + self.numbers * self.itemsize
        return size if self.layout.teams == 1 else 64 * (-(-size // 64) | 1)

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        if self.layout.kind.block:
            ring = stream.STAGES * self.stage * self.itemsize if self.layout.streamed else 0
            return self.layout.teams * self.team_pitch + ring
        return (1 + self.slots) * self.layout.threads * self.row_pitch * self.itemsize
