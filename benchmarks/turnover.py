"""A long queue: python -m benchmarks.turnover [--networks 1000000] [--minutes 60] [--slots 4096].

Networks of 13-16-3 on the wines, from a generator, with learning rates and lengths of their own, stream through slots
with a run directory, TensorBoard and a bar, as long as `minutes` by a rate that is measured first. Of each twentieth of
the time: networks that have ended, private memory of the process, and what the run directory and TensorBoard's files
have grown to. Linux alone tells a process its memory (RssAnon of /proc/self/status).

With --steps S instead, networks of --widths take S steps each on 64 made samples, without TensorBoard and evaluations:
from a generator through slots, or with --known from a table, as many at once as memory has room for. It says how long
that takes, and what part of the memory that the run announces it has taken at most.
"""

import random
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gpubp
from gpubp.reporters import Progress, Start

from .harness import command

STEPS_AN_EPOCH = 5
COMMON = {"widths": "13,16,3", "loss": "cross_entropy", "batch_size": 32, "evaluate_every": 100}


class Sample(NamedTuple):
    """What a moment of the run holds."""

    seconds: float
    steps: int
    memory_mb: float
    files: int
    run_mb: float
    tensorboard_mb: float


class Watch(gpubp.Reporter):
    """Samples a run now and then, from a thread of its own."""

    def __init__(self, folder: Path, every: float) -> None:
        self.folder, self.every, self.begun, self.steps = folder, every, time.perf_counter(), 0
        self.samples: list[Sample] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def start(self, start: Start) -> None:
        """Note what the run announces, bytes, and what the process has before."""
        (found,) = (re.findall(r"need (\S+) (.?)B", line) for line in start.lines if line.startswith("memory: "))
        number, unit = found[0]
        self.announced = float(number) * 1000 ** " KMGT".index(unit or " ")

    def progress(self, progress: Progress) -> None:
        """Note how far the run is."""
        self.steps = progress.done

    def finish(self, result: gpubp.Result) -> None:
        """No sample from now on."""
        self.over.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.over.wait(self.every):
            self.samples.append(self.sample())

    def sample(self) -> Sample:
        """Of now."""
        memory = found("RssAnon") / 1e6
        sizes = {each: each.stat().st_size / 1e6 for each in self.folder.rglob("*") if each.is_file()}
        events = sum(size for each, size in sizes.items() if "tfevents" in each.name)
        seconds = time.perf_counter() - self.begun
        return Sample(seconds, self.steps, memory, len(sizes), sum(sizes.values()), events)


def made(networks: int, slots: int | None, steps: int, widths: str, optimizer: str, known: bool) -> None:
    """Train networks of `steps` steps each on made samples."""
    draw, (first, *_, last) = torch.Generator().manual_seed(0), map(int, widths.split(","))
    data = gpubp.Dataset(*(torch.rand(64, width, generator=draw) for width in (first, last)))
    common = {"widths": widths, "batch_size": 8, "optimizer": optimizer, "steps": steps}
    slots = None if known else slots
    gpubp.train_many([{}] * 64, data, **common)  # compiles
    rates = 10 ** torch.empty(networks).uniform_(-4, -1, generator=draw)
    design: Any = {"lr": rates} if known else ({"lr": float(rate)} for rate in rates.numpy())
    with tempfile.TemporaryDirectory() as place:
        before, watch = found("VmRSS"), Watch(Path(place, "run"), 0.25)
        result = gpubp.train_many(design, data, slots=slots, run_dir=watch.folder, reporters=[watch], **common)
        end, most = watch.sample(), found("VmHWM") - before
    print(f"{networks:,} networks of {widths}: {end.seconds:.1f} s, {result.fates}")
    memory = [each.memory_mb for each in watch.samples]
    print(f"{end.files} files of {end.run_mb:,.0f} MB")
    print(f"private memory: {memory[0]:,.0f} MB at first, {max(memory):,.0f} at most, {end.memory_mb:,.0f} at the end")
    print(f"{most / 1e6:,.0f} MB more than before the run, {most / watch.announced:.2f} of what it announced")


def found(name: str) -> int:
    """Bytes of this process that Linux tells."""
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) * 1024


def rows(count: int, epochs: int) -> Iterator[dict[str, Any]]:
    """A design: lengths spread 1:19 about `epochs`."""
    draw = random.Random(0)
    for number in range(count):
        length = max(1, round(epochs * draw.uniform(0.1, 1.9)))
        yield {"lr": 10 ** draw.uniform(-4, -1), "epochs": length, "seed": number}


def main(
    networks: int = 1_000_000, minutes: float = 60.0, slots: int = 4096, steps: int = 0, widths: str = "2,2,2",
    optimizer: str = "sgd", known: bool = False,
) -> None:  # fmt: skip
    """Measure and print; the last three go with steps."""
    if steps:
        made(networks, slots, steps, widths, optimizer, known)
        return
    data = gpubp.load_data("wine")

    def train(count: int, epochs: int, **more: Any) -> gpubp.Result:
        design = rows(count, epochs)
        return gpubp.train_many(design, data.training, data.validation, slots=slots, **COMMON, **more)

    train(slots, 10)  # compiles
    begun = time.perf_counter()
    rate = train(4 * slots, 400).network_steps / (time.perf_counter() - begun)
    epochs = round(60 * minutes * rate / networks / STEPS_AN_EPOCH)
    print(f"{rate:,.0f} network-steps/s, so networks of {epochs} epochs in the mean", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        watch = Watch(folder, 60 * minutes / 20)
        reporters = [watch, gpubp.TensorBoardReporter(folder), gpubp.ConsoleReporter()]
        result = train(networks, epochs, run_dir=folder, reporters=reporters)
        watch.samples.append(watch.sample())
        del result
    print(*Sample._fields)
    for each in watch.samples:
        print(*(f"{value:,.0f}" for value in each))


if __name__ == "__main__":
    command(main, about=__doc__)
