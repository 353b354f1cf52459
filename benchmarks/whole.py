"""Whole runs: the command line on the digits, part by part (phases.py), and gpubp.train against JAX on topologies that
no kernel was tuned for, on quiet cores and with another process spinning on each.

Each run of the command line is a new process; the first, which compiles, is reported separately. Trainings against
JAX start and end in host memory, with the same weights and minibatches and compiled kernels, and
end with loss and accuracy on all training data.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gpubp

from .harness import OTHER, Setting, interleave, ratio
from .workloads import Problem, Workload

ROOT = Path(__file__).resolve().parent.parent
CHILD = "import sys; from benchmarks import phases; phases.main(*sys.argv[1:])"
SPIN = "while True: pass"
RUNS = 3  # of each command line, after the first
DIGITS = ("--data", "digits", "--epochs", "20")
TUTORIAL = ("--data", "tutorial", "--networks", "1000000", "--evaluate-every", "10000", "--dtype", "float32")
SAMPLES, LR = 2000, 0.01
FAR = 100 * OTHER  # of the distance moved: hundreds of steps of float32 with another order of sums


class Case(NamedTuple):
    """A training: widths, hidden activation, N networks, B samples per step, number of steps."""

    widths: tuple[int, ...]
    hidden: str
    networks: int
    batch: int
    steps: int
    optimizer: str = "sgd"

    @property
    def name(self) -> str:
        """The name in a table."""
        shape = "-".join(map(str, self.widths))
        return f"{shape} {self.hidden}, {self.optimizer}, N = {self.networks:,}, B = {self.batch}, {self.steps} steps"

    def problem(self) -> Problem:
        """Weights, and the minibatches of one pass; classes."""
        passes = Workload(
            self.widths, self.hidden, "cross_entropy", self.networks, self.batch, steps=SAMPLES // self.batch
        )
        return passes.problem(self.optimizer)._replace(lr=LR)


CASES = (
    Case((100, 40, 10), "tanh", 192, 50, 40),
    Case((20, 12, 3), "relu", 2048, 40, 400),
    Case((50, 500, 5), "relu", 48, 100, 100),
    Case((30, 60, 30, 10), "tanh", 256, 80, 200, "adam"),
    Case((64, 48, 24, 12, 10), "relu", 512, 50, 100),
)


def command_lines(device: str, networks: int | None = None) -> dict[str, tuple[str, ...]]:
    """The command lines, by name. networks: one number for the digits, instead of several and the tutorial."""
    sizes = (1_000, 10_000) if device == "cpu" else (1_000, 10_000, 100_000)
    lines = {f"digits, {size:,}": (*DIGITS, "--networks", str(size)) for size in ([networks] if networks else sizes)}
    return lines if device == "cpu" or networks else {**lines, "tutorial, 1,000,000": TUTORIAL}


def runs(words: Sequence[str], count: int, threads: int, device: str) -> dict[str, Any]:
    """Medians of `count` runs, each in a new process, and the first run before them."""
    first, *others = (run(words, threads, device) for _ in range(count + 1))
    medians = {part: statistics.median(each[part] for each in others) for part in others[0]}
    over = statistics.median(each["total"] / each["steps"] for each in others)
    return {"command": ["train", *words], "first": first, "runs": others, "median": medians, "total_over_steps": over}


def run(words: Sequence[str], threads: int, device: str) -> dict[str, float]:
    """The parts of one run, in seconds; other: the rest. Raises RuntimeError with its output if it fails."""
    with tempfile.TemporaryDirectory(prefix="whole") as folder:
        parts, runs = Path(folder, "parts.json"), Path(folder, "run")
        also = ["train", *words, "--device", device, "--run-dir", str(runs)]
        limit = {} if threads == os.cpu_count() else {"OMP_NUM_THREADS": str(threads)}
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", CHILD, repr(begun), str(parts), *also],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **limit},
        )  # fmt: skip
        total = time.monotonic() - begun
        if done.returncode:
            raise RuntimeError(f"gpubp {' '.join(also)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        spent: dict[str, float] = json.loads(parts.read_text())
        return {**spent, "other": total - sum(spent.values()), "total": total}


def beside_jax(case: Case, setting: Setting) -> dict[str, Any]:
    """Seconds of whole trainings round by round, alone and with spinning processes, and JAX's over gpubp's."""
    from .jax_peers import Whole

    problem = case.problem()
    data = gpubp.Dataset(problem.inputs.flatten(0, 1), problem.targets.flatten(0, 1))
    config = gpubp.TrainConfig(case.optimizer, lr=LR, batch_size=case.batch, steps=case.steps, shuffle="none")
    others = {f"jax_{order}": Whole(problem, case.steps, order == "last") for order in ("first", "last")}

    def ours() -> gpubp.Result:
        return gpubp.train(problem.population, data, config, device=setting.device)

    calls: dict[str, Callable[[], Any]] = {"gpubp": ours, **{name: other.train for name, other in others.items()}}
    result = ours()
    apart = {name: _apart(other, result, problem.population.params) for name, other in others.items()}
    if max(apart.values()) > FAR:
        raise AssertionError(
            f"{case.name}: not the same training: weights differ by {apart} of the distance moved; at most {FAR:g} "
            "expected"
        )
    quiet = interleave(calls, setting)
    with spinning():
        busy = interleave(calls, setting)
    best = min(others, key=lambda name: statistics.median(quiet[name]))
    return {
        "case": case.name, **case._asdict(), "samples": SAMPLES, "engine": result.engine, "share_of_way": apart,
        "best": best, "quiet": quiet, "busy": busy,
        "quiet_ratio": ratio(quiet[best], quiet["gpubp"]), "busy_ratio": ratio(busy[best], busy["gpubp"]),
    }  # fmt: skip


def _apart(other: Any, result: gpubp.Result, start: torch.Tensor) -> float:
    """The distance between the median network's weights, over the distance that it moved. Raises AssertionError if
    the median losses differ."""
    layers, loss, _ = other.train()
    mine, theirs = result.loss.median().item(), float(torch.from_numpy(loss.copy()).median())
    if abs(mine - theirs) > 1e-3 * abs(mine):
        raise AssertionError(f"median losses of {mine} and {theirs}: not the same training")
    rows, ours = other.rows(layers), result.population.params.cpu()
    return float(((rows - ours).norm(dim=1) / (ours - start).norm(dim=1)).median())


@contextmanager
def spinning() -> Iterator[None]:
    """Run a spinning process on every core meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
