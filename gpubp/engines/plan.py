"""Where a kernel keeps its numbers, as data: the arrays of a network, in rows of what pitch, and their places.

program.py prints them, the kernel adds pointers, chip.py sums. Nothing here changes a bit. Places: "registers" of a
GPU's thread, "shared" and "global" memory of a GPU, and "memory" of a CPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .layout import Layout, tile

WAYS = 8  # partial sums of an evaluation, each of which gets every eighth sample
BYTES = {"double": 8, "int64_t": 8, "uint32_t": 4, "int32_t": 4, "bool": 1}  # of an element


class Array(NamedTuple):
    """`numbers` elements of memory; what: their shape, and what they are. Where it is not there it has none."""

    name: str
    numbers: int
    what: str
    place: str


class Field(NamedTuple):
    """An array of numbers of its own type, which the kernel's compiler places."""

    kind: str
    name: str
    dims: tuple[int, ...]
    what: str


@dataclass(frozen=True)
class Plan:
    """The memory of a kernel. given: its constants, as program.py prints them; -1 where a switch is off."""

    widths: tuple[int, ...]
    layout: Layout
    itemsize: int
    given: Mapping[str, int]

    # ---- layers

    def padded(self, width: int) -> int:
        """Up to a whole number of v."""
        return -(-width // self.layout.neighbours) * self.layout.neighbours

    @cached_property
    def pitch(self) -> list[int]:
        """For each width, elements from a row of a matrix to the next. Rows that lie 1 KB apart, or a multiple, fall
        into few lines of a CPU's cache: 64 outputs with lanes as networks lost up to a quarter of the rate. Rows that
        lie an odd number apart meet each of the 32 banks of a GPU's shared memory once."""
        if self.layout.threads:
            return [width | 1 if self.layout.team else width for width in self.widths]
        size = self.itemsize * self.layout.networks
        padded = [self.padded(width) for width in self.widths]
        return [width if width * size % 1024 else width + self.layout.neighbours for width in padded]

    @property
    def widest(self) -> int:
        """The largest pitch of outs."""
        return max(self.pitch[1:])

    @cached_property
    def biases(self) -> list[int]:
        """Of each layer, in the order of BIASES."""
        return [(width, 1, 0)[self.given["BIAS"]] for width in self.widths[1:]]

    @cached_property
    def rows(self) -> list[int]:
        """Where each layer begins in a row of parameters, as spec.layout has it, and the row's end."""
        sizes = (i * o + bias for i, o, bias in zip(self.widths, self.widths[1:], self.biases))
        return [*itertools.accumulate(sizes, initial=0)]

    @cached_property
    def weights(self) -> list[int]:
        """The same in the kernel, with rows of a weight padded."""
        sizes = (i * o + self.padded(bias) for i, o, bias in zip(self.widths, self.pitch[1:], self.biases))
        return [*itertools.accumulate(sizes, initial=0)]

    @cached_property
    def outs(self) -> list[int]:
        """Where the outs of each layer begin, and their end."""
        return [*itertools.accumulate((self.given["CHUNK"] * pitch for pitch in self.pitch[1:]), initial=0)]

    # ---- arrays

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Of kernel/memory.h's Memory, in order; those that a kernel does not need are empty."""
        g, place = self.given, {"gpu_thread": "registers", "gpu_block": "shared"}.get(self.layout.machine, "memory")
        learns, cut, dropout = g["TASK"] == 0, g["CHUNK"] < g["BATCH"], g["DROPOUT"] >= 0
        chunk, batch, params, acts, widest = g["CHUNK"], g["BATCH"], self.weights[-1], self.outs[-1], self.widest
        weighted, targets = g["SAMPLE_WEIGHT"] or g["CLASS_WEIGHT"], 1 if g["CLASSES"] else self.widths[-1]
        transposed = max((o * pitch for o, pitch in zip(self.widths[2:], self.pitch[1:])), default=0)
        whole = (
            ("params", params, "(PADDED_P): the parameters"),
            ("slots", g["SLOTS"] * params, "(SLOTS, PADDED_P): of the optimizer"),
            ("grad", params if cut or g["CLIP_NORM"] >= 0 else 0, "(PADDED_P): over the chunks so far, or to clip"),
            ("x", chunk * self.pitch[0] if g["GATHER"] else 0, "(CHUNK, I): inputs, with GATHER"),
            ("y", chunk * targets if g["GATHER"] else 0, "(CHUNK, TARGETS): targets, with GATHER"),
            ("outs", acts, "(CHUNK, O) of each layer"),
            ("nets", acts if g["KEEP_NETS"] else 0, "(CHUNK, O) of each layer, with KEEP_NETS"),
            ("belows", acts if dropout else 0, "(CHUNK, O) of each layer: its outs after dropout"),
            ("masks", acts if dropout else 0, "(CHUNK, O) of each layer: what dropout multiplies them by"),
            ("delta", chunk * widest if learns else 0, "(CHUNK, O): of the layer that backward() is at"),
            ("delta_below", chunk * widest if learns else 0, "(CHUNK, I): of the layer below; the two take turns"),
            ("transposed", transposed if learns and self.layout.wide else 0, "(O, I): a weight transposed"),
            ("column_sums", widest if learns else 0, "(O): of a matrix with O columns"),
            ("delta_sums", (len(self.widths) - 1) * widest if cut and self.given["BIAS"] == 1 else 0,
             "(LAYERS, MAX_PITCH): of deltas over the chunks so far, for the one bias of a layer"),
            ("error", batch, "(BATCH): each sample's loss, times its share"),
            ("share", batch if learns and weighted else 0, "(BATCH): each sample's weight over the sum of all"),
            ("hits", batch if g["TASK"] and g["METRIC"] else 0, "(BATCH): how many outs of each sample are right"),
            ("class_weight", self.widths[-1] if g["CLASS_WEIGHT"] else 0, "(O): of each class"),
        )  # fmt: skip
        far = "" if self.layout.near else "slots"
        return tuple(Array(name, size, what, "global" if name == far else place) for name, size, what in whole)

    @cached_property
    def numbers(self) -> int:
        """Entries of Memory."""
        return sum(self.padded(array.numbers) for array in self.arrays if array.place != "global")

    @cached_property
    def sums(self) -> dict[str, int]:
        """Where the partial sums of an evaluation begin, and their end, SUMS. R2 is of every output by itself."""
        g, outputs = self.given, self.widths[-1]
        r2, weight = g["METRIC"] == 0, g["SAMPLE_WEIGHT"] > 0
        ways = {"ERROR": WAYS, "HITS": WAYS * (not r2), "COUNTED": WAYS * (weight or g["CLASS_WEIGHT"]),
                "WEIGHT": WAYS * weight, "SQUARES": outputs * max(1, WAYS // outputs) * r2}  # fmt: skip
        return dict(zip([*ways, "SUMS"], itertools.accumulate(ways.values(), initial=0)))

    @cached_property
    def group(self) -> tuple[Field, ...]:
        """Of the kernel's Group, in order: what the networks of a group are besides their numbers."""
        g, networks = self.given, self.layout.networks
        each: tuple[Field, ...] = (
            Field("double", "hyper", (g["HYPERS"] + 1, networks), "hyper-parameters"),
            Field("double", "columns", (g["COLUMNS"] + 1, networks), "numbers that the optimizer keeps"),
            Field("double", "schedule_step", (networks,), "the number of the step"),
            Field("double", "schedule_end", (networks,), "and of the last of the training"),
            Field("real", "hyper_real", (g["HYPERS"] + 1, networks), "hyper as real"),
            Field("real", "rate", (max(g["RATES"], 1), networks), "what this step's update takes"),
            Field("bool", "same_rates", (), "whether all networks have the same; then only the first's are current"),
            Field("uint32_t", "id", (networks,), "Population.ids, by which random numbers are drawn"),
            Field("uint32_t", "dropout_step", (networks,), "the number of the step"),
            Field("int64_t", "samples_at", (networks,), "where a network's own samples begin in Job's,"),
            Field("int64_t", "rows_at", (networks,), "and its rows in Job.rows"),
            Field("int32_t", "index", (g["BATCH"], g["ORDERS"]), "the samples of this step"),
        )
        if g["TASK"]:
            each += (
                Field("int64_t", "size", (networks,), "how many samples a network has"),
                Field("double", "sums", (self.sums["SUMS"], networks), "partial sums of an evaluation"),
            )
        return each

    @cached_property
    def group_bytes(self) -> int:
        """As a compiler places fields one after the other, each at a multiple of its element."""
        at, bytes_of = 0, {**BYTES, "real": self.itemsize}
        for field in self.group:
            size = bytes_of[field.kind]
            at = -(-at // size) * size + size * math.prod(field.dims)
        return -(-at // 64) * 64

    # ---- of a GPU

    @property
    def words(self) -> int:
        """Registers of 4 bytes that the numbers of a thread's network take."""
        return self.numbers * self.itemsize // 4 + (2 * self.sums["SUMS"] if self.given["TASK"] else 0)

    @property
    def far(self) -> int:
        """Elements of a network in global memory."""
        return sum(array.numbers for array in self.arrays if array.place == "global")

    @property
    def step(self) -> int:
        """Where a thread is a network, elements from one row in shared memory to the next: an odd number."""
        return self.rows[-1] | 1

    @property
    def apart(self) -> int:
        """Bytes of a network in a block, or from one to the next: an odd multiple of 64, so that the numbers of half a
        warp begin in other banks."""
        size = self.group_bytes + self.numbers * self.itemsize
        return size if self.layout.together == 1 else 64 * (-(-size // 64) | 1)

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        if self.layout.team:
            return self.layout.together * self.apart
        return (1 + self.given["SLOTS"]) * self.layout.threads * self.step * self.itemsize

    # ---- as text

    def products(self) -> Iterator[tuple[int, int, int]]:
        """(m, n, k) of every product, n in v: forward, the gradients of weights and biases, the delta below."""
        chunk, batch, learns = self.given["CHUNK"], self.given["BATCH"], self.given["TASK"] == 0
        for rows in dict.fromkeys((chunk, batch % chunk or chunk)):
            for i, o in itertools.pairwise(self.widths):
                down, across = (self.padded(width) // self.layout.neighbours for width in (i, o))
                yield from [(rows, across, i), *([(i, across, rows), (1, across, rows), (rows, down, o)] * learns)]

    def constants(self) -> list[str]:
        """Where everything is."""
        layers = {
            "WIDTH": (self.widths, "of the layers, the inputs' first"),
            "PITCH": (self.pitch, "of a matrix with rows of that width: entries from one row to the next"),
            "BIASES": (self.biases, "how many each layer has"),
            "LAYER_AT": (self.rows, "where each layer begins in a row of Job.params: its weight, then its biases"),
            "WEIGHT_AT": (self.weights, "where its weight begins in Memory.params, with every row padded,"),
            "BIAS_AT": ([end - self.padded(own) for end, own in zip(self.weights[1:], self.biases)], "and its biases"),
            "OUTS_AT": (self.outs, "and its outs, of CHUNK samples"),
        }
        sizes = {
            "P": (self.rows[-1], "parameters of a network: numbers of a row of Job.params,"),
            "PADDED_P": (self.weights[-1], "and entries of Memory.params"),
            "MAX_PITCH": (self.widest, "the largest pitch of outs"),
            "MEMORY_ENTRIES": (self.numbers, "of Memory"), "GROUP_BYTES": (self.group_bytes, "of Group"),
        }  # fmt: skip
        if self.layout.threads:
            sizes["SHARED_BYTES"] = self.shared, "of shared memory that a block needs"
            sizes["ROW_PITCH"] = self.step, "numbers from one thread's row in shared memory to the next"
            sizes["TEAM_PITCH"] = self.apart, "bytes from one team's Group and Memory in shared memory to the next"
        if self.given["TASK"]:
            r2 = max(1, WAYS // self.widths[-1])
            sizes |= {"PARTIAL_SUMS": (WAYS, "of each kind"), "R2_PARTIAL_SUMS": (r2, "of each output, for R2")}
            sizes |= {name: (at, "where those of a kind begin in Group.sums") for name, at in self.sums.items()}
        tiles = {each: tile(*each, self.layout, self.itemsize) for each in self.products()}
        return [
            *(f"constexpr int {name}[] = {{{', '.join(map(str, of))}}};  // {what}"
              for name, (of, what) in layers.items()),
            *(f"constexpr int {name} = {size};  // {what}" for name, (size, what) in sizes.items()),
            "// The tile of each product (m, k) @ (k, n), n counted in v: rows and columns that are computed together.",
            "constexpr struct { int m, n, k, rows, cols; } TILES[] = {",
            *(f"    {{{', '.join(map(str, (*each, found.rows, found.cols)))}}}," for each, found in tiles.items()),
            "};",
        ]  # fmt: skip

    def structs(self) -> list[str]:
        """Memory, one array after the other, and Group."""
        at, memory, group = 0, [], []
        for name, numbers, what, place in self.arrays:
            where, says = ("nullptr", f"{what}, in global memory") if place == "global" else (f"base + {at}", what)
            memory.append(f"  entry *{name} = {where};  // {says}")
            at += self.padded(numbers) if place != "global" else 0
        for kind, name, dims, what in self.group:
            group.append(f"  {kind} {name}{''.join(f'[{size}]' for size in dims)};  // {what}")
        return ["struct Memory {", "  entry *base;", *memory, "};", "struct alignas(64) Group {", *group, "};"]
