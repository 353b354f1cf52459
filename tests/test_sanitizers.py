"""Kernels under the compiler's sanitizers: no read or write beside an array, nothing undefined, no race.

sanitize.cpp makes a program of a kernel, its Job in arrays of exact size at addresses that suit no vector. Together the
cases have every activation, loss, optimizer and schedule, every kind of data and every layout.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import gpubp
from gpubp.engines import build, cuda
from gpubp.engines.constants import shape
from gpubp.engines.key import Key, Samples
from gpubp.engines.layout import Kind, Layout
from gpubp.engines.program import Program

from .helpers import FAST, had, quick
from .playing import HEADER, flat

DRIVER = Path(__file__).parent / "sanitize.cpp"
MEMORY, ALL = "address,bounds,integer-divide-by-zero,shift,signed-integer-overflow", "address,undefined"
RACES, PLAIN = "thread", ""
SHARED = Samples(own=False, rows=False, inputs=False, weight=0, shuffle="shared")
OWN = Samples(own=True, rows=False, inputs=False, weight=0, shuffle="network")
RAGGED = Samples(own=True, rows=True, inputs=False, weight=2, shuffle="network")
APART = Samples(own=True, rows=False, inputs=True, weight=1, shuffle="none")
MANY, EIGHT, TEAM = Layout(vector=16, accumulators=24), Layout(vector=8), Layout(Kind.CPU_TEAM, 16, accumulators=24)
WIDE, THREE = Layout(Kind.CPU_OUTPUTS, 16, accumulators=24), Layout(vector=8, registers=3, accumulators=4)


class Case(NamedTuple):
    """A kernel and how many networks it is given."""

    hidden: tuple[str, ...]
    loss: str
    optimizer: str
    schedule: str
    samples: Samples
    layout: Layout
    count: int = 19
    dtype: torch.dtype = torch.float32
    output: str = "identity"
    bias: str = "neuron"
    task: str = "train"
    widths: tuple[int, ...] = (3, 17, 9, 4)
    settings: dict[str, Any] = {}

    def text(self) -> str:
        spec = gpubp.NetworkSpec(self.widths, self.hidden, self.output, self.loss, self.bias)
        settings = {"batch_size": 7, "lr": 0.01, **self.settings}
        config = gpubp.TrainConfig(self.optimizer, schedule=self.schedule, steps=20, **settings)
        values = config.switched_on(self.loss)
        values.update({"scale": 0.5} if config.timetable.events else {})
        key = Key(spec, config.recipe(spec), self.dtype, self.samples, task=self.task)
        program = Program(key, self.layout)
        numbers = ", ".join(repr(float(values[name])) for name in program.hyper)
        gpu = f'#include "{HEADER}"\n{cuda.text(program)}' if self.layout.threads else ""
        kernel = gpu or f'{program.text}#include "cpu.h"\n'
        if self.layout.general:
            kernel += f"static const int32_t NUMBERS[] = {{{', '.join(map(str, shape(program.plan)))}}};\n"
        return f'{kernel}constexpr double SETTINGS[] = {{{numbers}}};\n#include "{DRIVER}"\n'


def case(rules: str, samples: Samples, layout: Layout, count: int = 19, **given: Any) -> Case:
    """rules: activations, loss, optimizer, schedule. given: fields of a Case, and settings."""
    *hidden, loss, optimizer, schedule = rules.split()
    fields = {name: given.pop(name) for name in Case._fields if name in given}
    return Case((*hidden,), loss, optimizer, schedule, samples, layout, count, **fields, settings=given)


CHUNKED, WEIGHTS, DOUBLE = replace(MANY, chunk=3), [1.0, 2.0, 3.0, 4.0], torch.float64
CASES = {
    "lanes are 16 networks, adam, everything clipped": case(
        "tanh gelu huber adam cosine", SHARED, MANY,
        clip_value=0.5, clip_norm=1.0, l1=1e-3, l2=1e-3, warmup=3, weight_decay=0.1),
    "lanes are 16 networks, their own ragged rows, chunks, dropout": case(
        "relu sine cross_entropy momentum step", RAGGED, CHUNKED,
        dropout=0.3, label_smoothing=0.1, class_weight=WEIGHTS),
    "lanes are outputs, ragged rows, classes with weights": case(
        "softplus elu cross_entropy adamw one_cycle", RAGGED, WIDE, 3, dropout=0.3, class_weight=WEIGHTS),
    "lanes are 4 double outputs in chunks, a bias per layer": case(
        "selu sigmoid log_cosh nadam exponential", SHARED, replace(WIDE, vector=4, chunk=2), 3, dtype=DOUBLE,
        bias="layer", clip_norm=1.0, dropout=0.2),
    "three registers a lane, one sample a step, own inputs": case(
        "leaky_relu quantile rmsprop inverse_sqrt", APART, THREE, 29, widths=(3, 5, 2), batch_size=1),
    "a thread a network, double, layer by layer": case(
        "silu softsign binary_cross_entropy nesterov constant", OWN, Layout(), 3, dtype=DOUBLE,
        update_order="layerwise", dropout=0.1),
    "lanes are 16 networks, rows that are padded, their own inputs, chunks": case(
        "tanh relu mean_squared_error adam constant", APART, CHUNKED, 17, widths=(16, 32, 16, 4), clip_norm=1.0,
        dropout=0.2),
    "figures of networks, ragged rows, classes with weights": case(
        "tanh relu cross_entropy sgd constant", replace(RAGGED, shuffle="none"), CHUNKED, task="evaluate",
        class_weight=WEIGHTS, label_smoothing=0.1),
    "8 networks, hinge, adagrad, plateau": case("gelu_tanh hard_tanh hinge adagrad plateau", OWN, EIGHT, bias="none"),
    "8 double networks, an output that is not its net": case(
        "identity tanh mean_absolute_error adadelta constant", RAGGED, replace(EIGHT, accumulators=24), dtype=DOUBLE,
        output="gelu", dropout=0.1, l2=0.1),
    "outputs, poisson, amsgrad, own inputs": case(
        "relu gelu poisson amsgrad constant", APART, replace(WIDE, chunk=3), 3, l1=0.01, clip_value=1.0),
    "outputs, lion, a sigmoid": case(
        "relu relu half_squared_error lion constant", OWN, replace(WIDE, vector=8), 3, output="sigmoid"),
    "three registers, chunks, ragged rows, everything": case(
        "gelu selu mean_squared_error adam cosine", RAGGED, replace(THREE, vector=4, chunk=2), 29, dtype=DOUBLE,
        bias="layer", dropout=0.3, clip_norm=1.0, l1=0.01),
    "three registers, shared samples, classes": case(
        "relu tanh cross_entropy adam constant", SHARED, replace(MANY, registers=3, accumulators=8), 50),
    "scalars, cross_entropy, norms": case(
        "relu tanh cross_entropy adam constant", RAGGED, Layout(chunk=2), 3, clip_norm=1.0, dropout=0.2,
        class_weight=WEIGHTS),
    "figures of one network, lanes are outputs": case(
        "tanh relu huber sgd constant", APART, replace(WIDE, chunk=4), 3, task="evaluate"),
    "general, ragged rows, in chunks, everything": case(
        "tanh gelu tanh cross_entropy adam cosine", RAGGED, replace(WIDE, chunk=3, general=True), 5,
        widths=(3, 33, 9, 1, 4), class_weight=WEIGHTS, dropout=0.3, clip_norm=1.0, l1=0.01),
    "general, double, layer by layer, a bias per layer": case(
        "tanh gelu mean_squared_error momentum constant", SHARED, replace(WIDE, vector=8, general=True), 3,
        dtype=DOUBLE, bias="layer", update_order="layerwise", dropout=0.2),
    "general figures of R2": case(
        "tanh relu huber sgd constant", APART, replace(WIDE, chunk=4, general=True), 3, task="evaluate"),
    "figures of networks, three registers, shared samples": case(
        "tanh relu hinge sgd constant", replace(SHARED, shuffle="none"), replace(THREE, chunk=4), 29, dtype=DOUBLE,
        task="evaluate"),
}  # fmt: skip

EVERYTHING = {"dropout": 0.3, "clip_norm": 1.0, "l1": 0.01, "clip_value": 0.5}
CHUNKS = case("tanh gelu cross_entropy adam cosine", RAGGED, replace(TEAM, vector=4, chunk=3), 3, widths=(3, 9, 5, 4),
              **EVERYTHING, class_weight=WEIGHTS)  # fmt: skip
FIGURES = CASES["figures of one network, lanes are outputs"]
TEAMS = {
    "general, over groups": CASES["general, ragged rows, in chunks, everything"],
    "ragged rows, in chunks": CHUNKS,
    "shared rows, a bias per layer": case(
        "tanh gelu huber adam constant", SHARED, replace(TEAM, vector=8), 3, bias="layer", **EVERYTHING),
    "groups of 8, ragged": CASES["lanes are 16 networks, their own ragged rows, chunks, dropout"]._replace(
        layout=replace(EIGHT, chunk=3)),
    "figures of a team": FIGURES._replace(layout=replace(TEAM, chunk=4)),
    "16 double outputs, ragged": case(
        "tanh gelu cross_entropy adamw one_cycle", RAGGED, replace(TEAM, chunk=3), 3, dtype=DOUBLE, bias="layer",
        **EVERYTHING),
    "layer by layer": case(
        "tanh gelu mean_squared_error momentum constant", OWN, replace(TEAM, vector=8), 3, bias="layer",
        update_order="layerwise", dropout=0.2, l2=0.1),
}  # fmt: skip
BLOCK = Layout(Kind.GPU_BLOCK, threads=3, accumulators=32, cols=8)
QUADS = Layout(Kind.GPU_WIDE, registers=4, threads=3, accumulators=16, cols=2)
STREAMED, CORES = replace(QUADS, kind=Kind.GPU_STREAMED), replace(QUADS, registers=2, threads=64, cols=8, tf32=3)
BLOCKS = {
    "a block, ragged rows, in chunks": CHUNKS._replace(layout=replace(BLOCK, chunk=3)),
    "two blocks for three networks, slots outside": CHUNKS._replace(layout=replace(BLOCK, slots_apart=True)),
    "quads, in chunks": CHUNKS._replace(layout=replace(QUADS, chunk=3, slots_apart=True)),
    "streamed, in chunks": CHUNKS._replace(layout=replace(STREAMED, chunk=3)),
    "streamed by a cluster": CHUNKS._replace(layout=replace(STREAMED, chunk=3, blocks=2)),
    "tensor cores": CHUNKS._replace(layout=replace(CORES, chunk=3, slots_apart=True)),
    "figures of networks": CASES["figures of networks, ragged rows, classes with weights"]._replace(
        layout=replace(BLOCK, chunk=3), count=3),
    "two networks in a warp": CHUNKS._replace(
        layout=replace(BLOCK, threads=16, teams=2), hidden=("gelu",), widths=(3, 4, 4)),
    "figures of R2": FIGURES._replace(layout=replace(BLOCK, chunk=4)),
    "figures, quads": FIGURES._replace(layout=replace(QUADS, chunk=4)),
    "figures, streamed": FIGURES._replace(layout=replace(STREAMED, chunk=4)),
}  # fmt: skip
SCALARS = CASES["a thread a network, double, layer by layer"]._replace(hidden=("silu",), widths=(3, 17, 4))
SMALL = case("tanh mean_squared_error sgd constant", OWN, STREAMED, 3, widths=(3, 17, 4))
MORE_BLOCKS = {
    "a block, shared rows": TEAMS["shared rows, a bias per layer"]._replace(layout=BLOCK, samples=OWN),
    "a block, layer by layer": TEAMS["layer by layer"]._replace(layout=BLOCK),
    "a block of quads, a bias per layer": TEAMS["shared rows, a bias per layer"]._replace(layout=QUADS, samples=OWN),
    "a block of quads, layer by layer": TEAMS["layer by layer"]._replace(layout=QUADS),
}  # fmt: skip
MORE_BLOCKS |= {f"{name}, streamed": case._replace(layout=STREAMED) for name, case in MORE_BLOCKS.items()}


@lru_cache
def compiler(kind: str) -> list[str]:
    """The compiler's command for sanitizers `kind`; skips where it has not their runtime."""
    command = [*had(build.compiler), "-std=c++17", *FAST, "-ffp-contract=off", "-Wno-psabi", "-pthread",
               "-march=native", *([f"-fsanitize={kind}"] if kind else [])]  # fmt: skip
    if kind in (MEMORY, ALL):
        command.append("-fno-sanitize-recover=all")
    probe = "set -e; d=$(mktemp -d); echo 'int main() {}' > $d/a.cpp; \"$@\" $d/a.cpp -o $d/a && $d/a; rm -r $d"
    done = subprocess.run(["bash", "-c", probe, "probe", *command], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]} has no -fsanitize={kind} that runs here: {done.stderr.strip()[-300:]}")
    return command


def made(text: str, folder: Path, kind: str, *flags: str) -> Path:
    """The program."""
    source, program = folder / "kernel.cpp", folder / "kernel"
    source.write_text(text, encoding="utf-8")
    command = [*compiler(kind), *flags, f"-I{build.SOURCES}", str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return program


def played(program: Path, count: int, threads: int, **more: str) -> subprocess.CompletedProcess[str]:
    """What it said with so many networks and threads; more: of its environment."""
    command, more = [program, f"{count}", f"{threads}"], {"TSAN_OPTIONS": "halt_on_error=1", **more}
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | more, timeout=120)


def sound(program: Path, count: int, threads: int) -> str:
    """The numbers it printed; fails with what a sanitizer or the driver reported."""
    done = played(program, count, threads)
    assert not done.stderr, done.stderr[:4000]
    assert done.returncode == 0
    return done.stdout


SLOW = pytest.mark.slow
USUAL = {
    "lanes are outputs, ragged rows, classes with weights", "ragged rows, in chunks", "two networks in a warp",
}  # fmt: skip


def marked(cases: dict[str, Case]) -> Sequence[Any]:
    """Those of USUAL, and the others by name: each is compiled under a sanitizer, which takes seconds."""
    return [pytest.param(case, id=name, marks=[SLOW] * (name not in USUAL)) for name, case in cases.items()]


@pytest.mark.parametrize("kind", [MEMORY, pytest.param(ALL, marks=SLOW)], ids=["quick", "all"])
@pytest.mark.parametrize("case", marked(CASES))
def test_a_kernel_accesses_only_its_memory_and_does_nothing_undefined(case: Case, kind: str, tmp_path: Path) -> None:
    """And an overrun and a sum that overflows, each of one number of networks more, are caught."""
    driver, more = DRIVER.read_text(encoding="utf-8"), [case.count + 1, case.count + 2]
    for old, new in (("status = array<int8_t>(N, [", f"status = array<int8_t>(N - (N == {more[0]}), ["),
                     ("job.seed = 5", f"job.seed = 5 + (N == {more[1]} ? INT64_MAX - 5 + N : 0)")):  # fmt: skip
        assert old in driver
        driver = driver.replace(old, new)
    program = made(case.text().replace(f'#include "{DRIVER}"', driver), tmp_path, kind)
    assert sound(program, case.count, 1) == sound(program, case.count, 2)
    for count, words in zip(more, ("heap-buffer-overflow", "signed integer overflow")):
        done = played(program, count, 1)
        if case.task == "train" or count == more[1]:  # figures ask for no status
            assert done.returncode
            assert words in done.stderr


@pytest.mark.parametrize("most", quick([2, 3], [2]))
@pytest.mark.parametrize("case", marked(TEAMS))
def test_a_team_or_threads_over_groups_have_no_race_and_the_bits_of_one_thread(
    case: Case, most: int, tmp_path: Path
) -> None:
    """And a team that waits nowhere is caught."""
    team, barrier = case.layout.kind == Kind.CPU_TEAM, '-DBARRIER=if (!getenv("MISSING")) barrier();'
    program = made(f"#include <stdlib.h>\n{case.text()}", tmp_path, RACES, *[barrier] * team)
    alone = sound(program, case.count, 1)
    for threads in range(2, most + 1):
        assert sound(program, case.count, threads) == alone, f"{threads} threads"
    if team:
        done = played(program, case.count, 2, MISSING="1")
        assert "data race" in done.stderr or done.stdout != alone


@pytest.mark.parametrize("case", marked(BLOCKS | MORE_BLOCKS))
def test_a_gpus_block_has_no_race_and_accesses_only_its_memory(case: Case, tmp_path: Path) -> None:
    by_threads = sound(made(case.text(), tmp_path, RACES, "-DRACES"), case.count, 1)
    assert sound(made(case.text(), tmp_path, MEMORY, "-DRACES"), case.count, 1) == by_threads


def test_a_gpus_thread_accesses_only_its_memory(tmp_path: Path) -> None:
    case = SCALARS._replace(layout=Layout(Kind.GPU_THREAD, threads=2))
    sound(made(case.text(), tmp_path, MEMORY, "-DRACES"), case.count, 1)


@SLOW
@pytest.mark.parametrize(
    ("layout", "line", "without"), [
        (QUADS, "wait_for_turn(end.turn + block, piece);", ";"),
        (replace(STREAMED, chunk=3), "2>();\n    __syncthreads();", "2>();\n"),
        (replace(STREAMED, blocks=2), "BARRIER wait_for_cluster();", "BARRIER __syncthreads();"),
        (BLOCK, "wait_for_turn(end.turn + block, piece);", ";"),
        (QUADS, "begin_piece(end, block, first > 0)", "end_piece(end, block, first == 0)"),
        (QUADS, "= atomicInc(end.tickets, last)",
         "= *end.tickets, *end.tickets = *end.tickets < last ? *scratch + 1 : 0"),
        (replace(BLOCK, chunk=3), "nt);\n  }\n  BARRIER", "nt);\n  }\n"),
    ])  # fmt: skip
def test_a_barrier_or_a_turn_that_a_block_misses_is_caught(
    layout: Layout, line: str, without: str, tmp_path: Path
) -> None:
    text = flat(SMALL._replace(layout=layout).text())
    assert line in text
    done = played(made(text.replace(line, without), tmp_path, RACES, "-DRACES"), SMALL.count, 1)
    if "data race" not in done.stderr:
        assert done.stdout != sound(made(text, tmp_path, PLAIN, "-DRACES"), SMALL.count, 1)


def test_the_cases_have_every_row_of_the_tables() -> None:
    cases = CASES.values()
    assert {*chain(*(case.hidden for case in cases))} == {*gpubp.ACTIVATIONS}
    assert {case.loss for case in cases} == {*gpubp.LOSSES}
    assert {case.optimizer for case in cases} == {*gpubp.OPTIMIZERS}
    assert {case.schedule for case in cases} == {*gpubp.SCHEDULES}
