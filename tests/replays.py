"""Runs of every kind, and what replay() has to be told of each; the replays of all their networks."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gpubp
from gpubp.search import Hyperband, PopulationBased, SuccessiveHalving
from gpubp.system import files

from .helpers import population, same_bits, samples
from .short_runs import COUNT, SPEC, config, forge, held_out, networks, training

RATES = [0.001, 0.3, 0.01, 1e308, 0.05]  # one of which diverges
COMMON: dict[str, Any] = {"widths": "3,6,4", "loss": "cross_entropy", "batch_size": 16, "engine": "eager"}
ROWS = [
    {"lr": 10 ** (-3 + n / 4), "seed": 3 * n, "epochs": 3 + n % 3, "init": ["normal", None, "orthogonal"][n % 3],
     "init_scale": 1 + n / 10} for n in range(10)
]  # fmt: skip


class Ran(NamedTuple):
    """A run that was made: its data, and what replay() has to be told besides."""

    data: gpubp.Dataset
    validation: gpubp.Dataset | None = None
    told: Callable[[], dict[str, Any]] = dict


def of_train(folder: Path, **settings: Any) -> Ran:
    """What diverges, finishes, stops and has its rate reduced; rows of the best evaluation."""
    chosen = config(**{"patience": 2, "restore_best": True, "batch_size": 16, "epochs": 8, **settings})
    gpubp.train(networks(), training(), chosen, held_out(), run_dir=folder, engine="eager")
    return Ran(training(), held_out(), lambda: {"population": networks()})


def extended(folder: Path) -> Ran:
    """Longer than at first, by part of a round."""
    chosen = {"lr": RATES, "batch_size": 16, "evaluate_every": 4, "epochs": 3, "restore_best": True}
    gpubp.train(networks(), training(), gpubp.TrainConfig(**chosen), run_dir=folder, engine="eager")
    gpubp.resume(folder, training(), epochs=7)
    return Ran(training(), None, lambda: {"population": networks()})


def with_samples_of_their_own(folder: Path) -> Ran:
    """Inputs, and weights of samples, of each network."""
    inputs, targets = samples(SPEC, COUNT, 20)
    data = gpubp.Dataset(inputs, targets, sample_weight=torch.rand(COUNT, 20, dtype=torch.float64) + 0.1)
    chosen = gpubp.TrainConfig(lr=RATES, dropout=0.2, epochs=3, batch_size=8)
    gpubp.train(networks(), data, chosen, run_dir=folder, engine="eager")
    return Ran(data, None, lambda: {"population": networks()})


def going_on(folder: Path) -> Ran:
    """After an earlier training, with its optimizer's memory."""
    first = gpubp.train(networks(), training(), gpubp.TrainConfig(lr=0.01, epochs=2), engine="eager")
    again = {"optimizer_state": first.state, "run_dir": folder, "engine": "eager"}
    gpubp.train(first.population, training(), gpubp.TrainConfig(lr=0.02, epochs=2), **again)
    return Ran(training(), None, lambda: {"population": first.population, "optimizer_state": first.state})


def designed(folder: Path, **settings: Any) -> Ran:
    """Rows with initial weights, lengths and rates of their own; with slots more than train at once."""
    gpubp.train_many(ROWS, training(), held_out(), run_dir=folder, dtype=torch.float64, **COMMON, **settings)
    return Ran(training(), held_out())


def rows() -> Iterator[dict[str, Any]]:
    yield from ROWS


def streamed(folder: Path) -> Ran:
    """Rows of a generator, which the run does not keep."""
    gpubp.train_many(rows(), training(), held_out(), run_dir=folder, slots=3, **COMMON)
    return Ran(training(), held_out(), lambda: {"design": rows()})


def folded(folder: Path, **settings: Any) -> Ran:
    """Folds, whose networks share a seed; or with every="..." bootstraps."""
    data = training().bootstrap(3) if settings else training().folds(3)
    design = [{**row, "fold": n % 3, "epochs": 4} for n, row in enumerate(ROWS)]
    gpubp.train_many(design, *data, run_dir=folder, **COMMON)
    return Ran(*data)


def of_entities(folder: Path) -> Ran:
    """A network for each entity, on its own samples."""
    data = training().by([["north", "east", "south"][n % 7 % 3] for n in range(40)]).split(0.3)
    chosen = gpubp.TrainConfig(lr=0.01, epochs=5, batch_size=8, patience=1, restore_best=True)
    gpubp.train(population(SPEC, 3), data[0], chosen, data[1], run_dir=folder, engine="eager")
    return Ran(*data, lambda: {"population": population(SPEC, 3)})


def searched(folder: Path, search: Any) -> Ran:
    """What a search stops, or overwrites; weight_decay differs, and the exchange takes it along."""
    design = [{**row, "epochs": 9, "weight_decay": 10.0 ** -(n % 5)} for n, row in enumerate(ROWS)]
    design[4]["lr"] = 1e308
    gpubp.train_many(design, training(), held_out(), run_dir=folder, search=search, restore_best=True, **COMMON)
    return Ran(training(), held_out())


def exchanged_in_folds(folder: Path) -> Ran:
    """Population based training within each of two folds, with lengths of their own."""
    data = training().folds(2)
    design = [{**row, "fold": n % 2, "epochs": 6 + n % 3} for n, row in enumerate(ROWS)]
    search = PopulationBased(every=1, quantile=0.5, space={"lr": [0.001, 0.01, 0.1]})
    gpubp.train_many(design, *data, run_dir=folder, search=search, schedule="cosine", patience=3, **COMMON)
    return Ran(*data)


KINDS: dict[str, Callable[[Path], Ran]] = {
    "train": of_train,
    "extended": extended,
    "samples of their own": with_samples_of_their_own,
    "optimizer's memory": going_on,
    "design": designed,
    "slots": lambda folder: designed(folder, slots=3, patience=2, restore_best=True),
    "stream": streamed,
    "folds": folded,
    "bootstraps": lambda folder: folded(folder, bootstrap=True),
    "entities": of_entities,
    "halving": lambda folder: searched(folder, SuccessiveHalving(factor=2)),
    "hyperband": lambda folder: searched(folder, Hyperband()),
    "pbt": lambda folder: searched(folder, PopulationBased(every=2, quantile=0.4, space={"lr": "1e-4..0.5:log"})),
    "pbt in folds": exchanged_in_folds,
}


def same(folder: Path, ran: Ran, some: int | None = None, results: bool = True) -> list[gpubp.Replay]:
    """All networks of a run, or `some` of them, drawn, replayed to their bits."""
    model, replays = gpubp.load(folder), []
    everyone = list(range(len(model)))
    for row in everyone if some is None else random.Random(str(folder.name)).sample(everyone, some):
        found = gpubp.replay(folder, row, data=ran.data, validation=ran.validation, **ran.told())
        assert found.difference is None
        assert {"row", "end", *(["results"] if results else [])} <= found.parts.keys()
        (part,) = model.populations.parts(torch.tensor([row]))
        assert same_bits(found.row, part.population.params[int(part.local)])
        replays.append(found)
    return replays


def resealed(folder: Path, **notes: Any) -> None:
    """The digests of a checkpoint that somebody has changed on purpose, and other notes."""

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        for entry in manifest["populations"]:
            entry["notes"] |= notes
        return {"sha256": files.digest(folder / "checkpoint" / manifest["tensors"])}

    forge(folder, change)
