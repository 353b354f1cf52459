"""Whole runs beside others, in interleaved rounds: python -m benchmarks.runs slots, stopping, reporters or mixed.

Each function is one of them, and its parameters are its flags. Seconds are of the clock, or of all processors, which
other programs hardly change.
"""

import statistics
import tempfile
from collections.abc import Sequence
from operator import truediv
from typing import Any

import torch

import gpubp
from gpubp.engines import general

from .harness import command, cost, own_kernels


def sine() -> gpubp.Dataset:
    """64 samples."""
    inputs = torch.linspace(-1, 1, 64)[:, None].repeat(1, 2)
    return gpubp.Dataset(inputs, torch.sin(3 * inputs))


class Watching(gpubp.Reporter):
    """Is told of every evaluation."""

    def evaluated(self, record: Any) -> None:
        """Nothing comes of it."""


def slots(networks: int = 100_000, slots: Sequence[int] = (1024, 4096, 16384), watched: bool = False) -> None:
    """Networks of 100 to 2,000 steps that wait for slots, beside as many steps of networks of one length that all train
    at once; --watched: a reporter looks at every evaluation of both."""
    data, common = sine(), {"widths": "2,8,2", "batch_size": 8, "optimizer": "sgd"}
    common |= {"reporters": [Watching()]} if watched else {}

    def times(steps: Any, **more: Any) -> tuple[float, float]:
        """Seconds of a network-step, of the clock and of processors."""
        result, *spent = cost(lambda: gpubp.train_many({"steps": steps}, data, **common, **more))
        return spent[0] / result.network_steps, spent[1] / result.network_steps

    times([20] * 4096)  # compiles
    full = times([2000] * 4096)
    print(f"full rate: {1 / full[0]:,.0f} network-steps/s")
    steps = torch.randint(100, 2001, (networks,), generator=torch.Generator().manual_seed(0))
    for count in slots:
        clock, processors = (own / whole for own, whole in zip(times(steps, slots=count), full))
        print(f"{count:,} slots: {clock:.2f} times the steps alone; of processors {processors:.2f} times")


def stopping(networks: int = 512, rounds: int = 5, epochs: int = 60, patience: int = 3) -> None:
    """What early stopping saves: learning rates on the digits, validated after every epoch, with patience and
    without."""
    data = gpubp.load_data("digits", validation=0.2)
    spec = gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy")

    def spent(count: int, patience: int | None) -> tuple[int, float, float]:
        rates = torch.logspace(-4, -1, count)
        config = gpubp.TrainConfig(lr=rates, epochs=epochs, batch_size=64, patience=patience, evaluate_every=1)
        population = gpubp.Population.create(spec, count, seed=0)
        result, clock, processors = cost(lambda: gpubp.train(population, data.training, config, data.validation))
        return result.network_steps, clock, processors

    spent(64, patience)  # compiles
    pairs = ((spent(networks, patience), spent(networks, None)) for _ in range(rounds))
    steps, clock, processors = zip(*(map(truediv, *pair) for pair in pairs))
    print(f"{networks:,} networks of 64-32-10, patience {patience} of {epochs} epochs: {steps[0]:.3f} of the steps")
    for name, each in (("processors", processors), ("clock", clock)):
        shares = [ratio / steps[0] for ratio in each]
        print(f"{name}: {statistics.median(each):.3f} of the time, {statistics.median(shares):.2f} of the steps' share "
              f"({', '.join(f'{share:.2f}' for share in shares)})")  # fmt: skip


def reporters(
    networks: Sequence[int] = (1_000, 10_000, 100_000), widths: str = "2,2,2", data: str = "", epochs: int = 200,
    batch: int = 4, rounds: int = 5,
) -> None:  # fmt: skip
    """What TensorBoard's reporter adds to a run with an evaluation after every epoch, on 64 made-up samples or data by
    name: seconds of all processors, the least of the rounds."""
    spec = gpubp.NetworkSpec(tuple(map(int, widths.split(","))), "tanh", loss="cross_entropy")
    inputs = torch.rand(64, spec.widths[0], generator=torch.Generator().manual_seed(0))
    training = validation = gpubp.Dataset(inputs, (inputs.sum(1) > spec.widths[0] / 2).long())
    if data:
        prepared = gpubp.load_data(data)
        training, validation = prepared.training, prepared.validation

    def spent(count: int, shown: bool) -> float:
        rates, population = torch.logspace(-4, -1, count), gpubp.Population.create(spec, count)
        config = gpubp.TrainConfig(lr=rates, batch_size=batch, epochs=epochs, evaluate_every=1)
        with tempfile.TemporaryDirectory() as folder:
            told = [gpubp.TensorBoardReporter(folder)] if shown else []
            return cost(lambda: gpubp.train(population, training, config, validation, reporters=told))[2]

    for count in networks:
        spent(count, True)  # compiles and imports
        plain, shown = map(min, zip(*((spent(count, False), spent(count, True)) for _ in range(rounds))))
        print(f"{count:,} networks of {widths}: {plain:.3f} s, {shown:.3f} s with it, {shown / plain:.2f} times; "
              f"{1e3 * (shown - plain) / epochs:.2f} ms an evaluation")  # fmt: skip


def mixed(topologies: int = 24, networks: int = 4, epochs: int = 200, evaluations: int = 100, rounds: int = 3) -> None:
    """Many topologies of few networks each, the first time, which compiles, and later: in kernels for any widths, and
    in those of each topology."""
    data, common = sine(), {"loss": "mean_squared_error", "batch_size": 8, "optimizer": "adam", "epochs": epochs}
    common["evaluate_every"] = max(1, epochs // evaluations)
    design = [
        {"widths": f"2,{8 + number % 8},{8 + number // 8},2", "lr": 0.001 * (1 + n % 5)}
        for number in range(topologies) for n in range(networks)
    ]  # fmt: skip

    def spent() -> tuple[Any, float, float]:
        return cost(lambda: gpubp.train_many(design, data, **common))

    print(f"{topologies} topologies, {networks} networks each")
    for name, one in (("kernels for any widths", True), ("each its own", False)):
        with own_kernels(), general.only(one):
            first = spent()[1]
            results, clock, processors = zip(*(spent() for _ in range(rounds)))
        later = f"later {min(clock):.2f} s, {min(processors):.2f} s of the processor"
        print(f"{name}: the first time {first:.2f} s, {later}, {results[0].network_steps:,} steps")


if __name__ == "__main__":
    command(slots, stopping, reporters, mixed, about=__doc__)
