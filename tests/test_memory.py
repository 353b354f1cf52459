"""What a training takes in memory is planned, and what does not fit is refused with what to change."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp import memory
from gpubp.engines import build
from gpubp.errors import OutOfMemoryError
from gpubp.runs import design, loop
from gpubp.runs import making as maker

from .apart import APART
from .helpers import FAST, failing, population
from .test_train import SPEC, config, data


@pytest.mark.parametrize(("optimizer", "advice"), [("adam", "sgd"), ("sgd", "")])
def test_a_population_that_cannot_fit_is_refused_with_what_to_change(
    optimizer: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(optimizer=optimizer)
    fixed = memory.needed(SPEC, settings.recipe(SPEC), 0, 8)
    each = memory.needed(SPEC, settings.recipe(SPEC), 1, 8) - fixed
    monkeypatch.setattr("gpubp.system.free.available", lambda device: fixed + 3 * each)
    gpubp.train(population(SPEC, 3), data(), settings, engine="eager")
    with pytest.raises(OutOfMemoryError) as caught:
        gpubp.train(population(SPEC, 4), data(), settings, engine="eager")
    message = str(caught.value)
    assert f"4 networks of 3-6-2 with {optimizer} need {memory.size(fixed + 4 * each)} on cpu" in message
    assert f"{memory.size(fixed + 3 * each)} are free: train up to 3 networks at once" in message
    assert ("or use an optimizer without slots (sgd)" in message) == bool(advice)
    assert message.endswith(", or float32")
    monkeypatch.setattr("gpubp.system.free.available", lambda device: fixed)
    with pytest.raises(OutOfMemoryError, match=f"^1 network of 3-6-2 with {optimizer} needs .*, too little for one"):
        gpubp.train(population(SPEC, 1), data(), settings, engine="eager")


def test_a_run_says_what_it_needs_and_how_many_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, shapes = config(restore_best=True), []
    for widths, count in (((3, 6, 2), 5), ((3, 2), 2)):
        spec = gpubp.NetworkSpec(widths)
        shapes.append((spec, settings.recipe(spec), count, 8))
    steps = memory.needed(*shapes[0][:2], 0, 8)
    each = 38 * 8 * 4 + 24 * 8  # parameters, two slots and the best row; clocks
    free = steps + 7 * each
    monkeypatch.setattr(memory, "LIBRARIES", {})
    one = memory.plan(shapes[:1], False, free, [data(), data()])
    assert one.startswith("memory: 1.41 KB a network (38 parameters 304 B, optimizer adam 608 B, best rows 304 B, ")
    assert (
        f"; 5 at once need {memory.size(steps + 5 * each)}: {memory.size(5 * each)} of their own, "
        f"{memory.size(steps)} for activations and gradients, and then 2.5 KB for libraries and tables of the results; "
    ) in one
    assert one.endswith(f"; data {memory.size(2 * data().nbytes(0))}; {memory.size(free)} free, room for 7")
    many = memory.plan(shapes, False, free, waits=True)
    assert "up to 1.41 KB a network" in many
    assert "; 7 at once, while others wait, need " in many
    assert many.endswith("room for 7 of the largest")


class Told(gpubp.Reporter):
    """What a run says at its start about memory."""

    def start(self, start: Any) -> None:
        (self.plan,) = (line for line in start.lines if line.startswith("memory: "))


@pytest.mark.parametrize("given", [True, False])
def test_memory_is_called_free_that_was_so_before_the_networks_were_made(
    given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, told, copies = [1_000_000_000], Told(), maker.Maker.run
    initialise = design.initialise

    def made(*arguments: Any) -> Any:
        free[0] -= 500_000_000
        return initialise(*arguments)

    def copied(*arguments: Any) -> Any:
        free[0] -= 200_000_000
        return copies(*arguments)

    monkeypatch.setattr("gpubp.system.free.available", lambda device: free[0])
    monkeypatch.setattr(design, "initialise", made)
    monkeypatch.setattr(maker.Maker, "run", copied)
    if given:
        gpubp.train(population(SPEC, 3), data(), config(), engine="eager", reporters=[told])
    else:
        row = {"widths": "3,6,2", "hidden": "tanh", "steps": 2}
        gpubp.train_many([row] * 3, data(), dtype=torch.float64, engine="eager", reporters=[told])
    assert "; 1 GB free, room for " in told.plan
    assert free[0] == (800_000_000 if given else 300_000_000)


def taken(name: str) -> int:
    """Bytes of this process, by the name of a line of its status."""
    return int(Path("/proc/self/status").read_text().split(name)[1].split()[0]) * 1024


def takes_what_it_announces(count: int, widths: str, engine: str, run_dir: Path | None) -> None:
    """In a process of its own: from its start to its results, within 15 %."""
    build.FLAGS += FAST
    data = gpubp.Dataset(*(torch.rand(64, int(width)) for width in (widths.split(",")[0], widths.split(",")[-1])))
    told, before, common = Told(), taken("VmRSS:"), {"widths": widths, "batch_size": 8, "steps": 2, "engine": engine}
    design = {"lr": 10 ** torch.empty(count).uniform_(-4, -1)}
    assert gpubp.train_many(design, data, reporters=[told], run_dir=run_dir, **common).table.num_rows == count
    ((size, unit),) = re.findall(r" need (\S+) (.?)B: ", told.plan)
    assert 0.85 < (taken("VmHWM:") - before) / (float(size) * 1000 ** " KMG".index(unit or " ")) < 1.15


@pytest.mark.cpu("a process of its own trains, on the CPU")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("count", "widths", "engine", "files"),
    [
        pytest.param(10_000, "8,16,1", "cpu", False, marks=pytest.mark.slow),
        pytest.param(30_000, "8,16,1", "cpu", False, marks=pytest.mark.slow),
        pytest.param(30_000, "8,16,1", "eager", True, marks=pytest.mark.slow),
        pytest.param(100_000, "8,16,1", "cpu", True, marks=pytest.mark.slow),
        (1000, "64,32,10", "cpu", True),
        pytest.param(10_000, "64,32,10", "cpu", False, marks=pytest.mark.slow),
    ],
)
def test_a_process_takes_what_its_first_run_announces(
    count: int, widths: str, engine: str, files: bool, tmp_path: Path
) -> None:
    given = count, widths, engine, tmp_path / "run" if files else None
    process = APART.Process(target=takes_what_it_announces, args=given)
    process.start()
    process.join(300)
    assert process.exitcode == 0


def test_memory_that_runs_out_in_training_is_explained_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Loop, "calls", failing(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(OutOfMemoryError, match=r"4 networks of 3-6-2 with adam need .* per network"):
        gpubp.train(population(SPEC, 4), data(), config(), engine="eager")


def test_the_workspace_of_few_networks_is_theirs() -> None:
    """What many take is a block, of 168 MB."""
    told = Told()
    gpubp.train(population(SPEC, 3), data(), config(), engine="eager", reporters=[told])
    size = 40 * 3 * 256 * 6 * 8
    assert f" of their own, {memory.size(size)} for activations and gradients" in told.plan
