"""Mistakes planted in a copy of the kernel, each of which an ordinary test of the compiled engine must find."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from gpubp.engines import build, cpu

from . import (
    test_compiled,
    test_compiled_divergence,
    test_compiled_evaluation,
    test_compiled_independence,
    test_divergence,
    test_general,
)
from .helpers import compiled, quick, sources_copied  # noqa: F401
from .mutations import planted
from .test_compiled import CASES, Case, case


def a_step(has: Callable[[Case], bool]) -> None:
    """test_each_step_is_eagers of the smallest case that has what the mistake is about."""

    def size(number: int) -> int:
        own = case(number)
        return len(own.spec.widths) + 2 * ("chunks" in own.layout) + (own.layout in ("chosen", "team"))

    number = min((number for number in range(CASES) if has(case(number))), key=size)
    test_compiled.test_each_step_is_eagers_from_the_same_numbers(number)


def deep(own: Case) -> bool:
    """A hidden layer with a slope of its own, in one of the layouts that are not cut."""
    return len(own.spec.widths) > 2 and own.spec.activations[0] in ("sigmoid", "tanh", "gelu") and whole(own)


def whole(own: Case) -> bool:
    return "chunks" not in own.layout


def on(*names: str) -> Callable[[Case], bool]:
    """A case that has these settings."""
    return lambda own: all(name in own.settings for name in names) and len(own.spec.widths) > 2


class Mutant(NamedTuple):
    """What the kernel's sources have once, and the mistake, as planted() reads them; `test` must fail by it."""

    text: str
    test: Callable[[], None]


DIVERGENCE = partial(
    test_compiled_divergence.test_the_step_of_divergence_is_that_of_one_step_at_a_time, torch.float32, "chosen"
)
GENERAL = partial(test_general.test_a_general_kernel_has_the_bits_of_each_topologys_own, 2)
MUTANTS = {
    "a sign in the delta": Mutant("v x = [[ ~> -]]sum * slope", partial(a_step, deep)),
    "a slope is missing": Mutant("sum[[ * slope(under(l), unit.net, unit.out) ~> ]]", partial(a_step, deep)),
    "the output's slope is missing": Mutant("if constexpr ([[!OUTPUT_IDENTITY ~> false]]) delta =",
        partial(a_step, lambda own: own.spec.output in ("sigmoid", "tanh"))),
    "a bias of a neuron counts its samples twice": Mutant("product(SIZE(1), O, samples, [[Ones ~> Constant<2>]]()",
        partial(a_step, lambda own: own.spec.bias == "neuron" and own.spec.train_bias)),
    "a bias of a layer leaves out a neuron": Mutant("for (int o = [[0 ~> 1]]; o < OF(WIDTH, above(l)); o++) sum = sum",
        partial(a_step, lambda own: own.spec.bias == "layer" and own.spec.train_bias)),
    "clipping trains a frozen bias": Mutant("[[if (TRAIN_BIAS || holds_weight(at))  ~> ]]update_param",
        partial(a_step, lambda own: not own.spec.train_bias and on("clip_norm", "weight_decay")(own))),
    "the shared order is a sample ahead": Mutant("int64_t position = step * BATCH + p[[ ~>  + 1]];",
        partial(a_step, lambda own: own.settings["shuffle"] == "shared" and own.kind == "shared")),
    "a network's own order is a sample ahead": Mutant(
        "c.place[n] = (uint32_t)([[step * BATCH ~> (step * BATCH + 1)]] % size);",
        partial(a_step, lambda own: own.settings["shuffle"] == "network")),
    "a sample's weight counts twice": Mutant("ctx.mem.share[b] = weight * [[ ~> weight * ]]scale;",
        partial(a_step, lambda own: own.weight == "own weights")),
    "the clipped norm is a square": Mutant("([[sqrt_(as_v(square) ~> as_v(square]]) + real(1e-6))",
        partial(a_step, on("clip_norm"))),
    "a value is clipped above alone": Mutant("[[at_least_(at_most_(grad, limit), - ~> at_most_(grad, ]]limit)",
        partial(a_step, on("clip_value"))),
    "dropout drops outs but not deltas": Mutant("[[if (HAS_DROPOUT) sum = sum * unit.mask; ~> ]]",
        partial(a_step, on("dropout"))),
    "dropout does not scale the rest": Mutant("kept ? [[(real)(1 / (1 - p)) ~> 1]] : 0",
        partial(a_step, on("dropout"))),
    "the slots are read in another order": Mutant("read_at(slot_at(ctx.mem, [[ ~> SLOTS - 1 - ]]slot, 0), at)",
        partial(a_step, lambda own: own.settings["optimizer"] == "adam")),
    "l2 is not halved in the loss": Mutant("[[real(0.5) *  ~> ]]hyper_of(ctx, HYPER_L2)", partial(a_step, on("l2"))),
    "l1 has a weight's size": Mutant("[[sign_(weight) ~> weight]], grad)", partial(a_step, on("l1"))),
    "label smoothing spares a class": Mutant("smoothing / real(OUTPUTS[[ ~>  - 1]])",
        partial(a_step, on("label_smoothing"))),
    "a piece of a batch forgets the one before": Mutant(
        "earlier_weights = [[earlier_chunks(O_pitch, grad + weight_at ~> Zeros(]])",
        partial(a_step, lambda own: not whole(own))),
    "a transposed weight is not transposed": Mutant(
        "write(to, (o + j) * I_pitch + i, [[r[j] ~> r[ENTRIES_PER_V - 1 - j] ]])",
        partial(a_step, lambda own: own.layout == "outputs" and len(own.spec.widths) > 2)),
    "a tile is a column short": Mutant("for (int k = 0; k < K[[ ~>  - (K > 2)]]; k++) {\n      v right",
        partial(test_compiled_evaluation.test_figures_are_eagers, 0, torch.float32)),
    "a general tile is a column short": Mutant("for (int k = 0; k < K[[ ~>  - (K > 2)]]; k++) {\n    v right", GENERAL),
    "a general kernel has every layer's outs in one place": Mutant(
        "l > 0 ? outs + [[OUTS_AT[l - 1] ~> OUTS_AT[0] ]]", GENERAL),
    "a general kernel updates after every chunk": Mutant("[[start + CHUNK >= BATCH ~> 1]], start",
        partial(test_compiled_independence.check_layouts, case(16), ("general in chunks",))),
    "general sums have another order": Mutant("if (at % [[64 ~> 32]] == 0) of_64",
        partial(test_general.test_sums_over_many_samples_have_their_one_order, 65)),
    "a row that diverged is handed back": Mutant("finished && [[progress.diverged_after[n] < 0 &&  ~> ]]!ctx.dry_run;",
        DIVERGENCE),
    "a step of divergence is a step late": Mutant("[n] = progress.steps[[ ~>  + 1]];", DIVERGENCE),
    "a loss that is not finite is overlooked": Mutant(
        "[[progress.fault = progress.fault + progress.loss * real(0); ~> ]]",
        partial(test_divergence.test_a_non_finite_loss_ends_a_network_with_a_finite_row, cpu)),
    "a network that is through trains on": Mutant(
        "next = [[ctx.dry_run || !NONFINITE_STAYS ? progress.steps + 1 : steps[unfinished - 1] ~> steps[0] ]];",
        partial(test_compiled_independence.test_networks_may_be_and_end_at_different_steps,
                torch.float32, "network", "networks")),
}  # fmt: skip


def test_without_a_mistake_the_copy_passes(sources: Path) -> None:
    a_step(deep)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_planted_text_stands_in_the_sources_exactly_once(name: str) -> None:
    assert build.sources().count(planted(MUTANTS[name].text)[0]) == 1


QUICK = ("a sign in the delta", "a tile is a column short", "a network that is through trains on")


@pytest.mark.parametrize("name", quick(MUTANTS, QUICK))
def test_a_mistake_planted_in_the_kernel_is_found(name: str, sources: Path) -> None:
    text, test = MUTANTS[name]
    for path in sources.rglob("*.h"):
        path.write_text(path.read_text(encoding="utf-8").replace(*planted(text)), encoding="utf-8")
    with pytest.raises(AssertionError):
        test()
