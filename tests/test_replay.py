"""gpubp.replay(): a network trained again alone has every bit that it has in the run, whatever run that was; a
difference is told, and what cannot be replayed is refused."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import gpubp
from gpubp import checkpoint
from gpubp.errors import CheckpointError, ConfigError, ShapeError
from gpubp.initialise import initialise
from gpubp.search import Hyperband, PopulationBased, SuccessiveHalving

from .helpers import compiled, population, same_bits, samples  # noqa: F401
from .short_runs import COUNT, SPEC, Stop, config, held_out, networks, sealed, training
from .test_independence_drawn import COUNT as DRAWN
from .test_independence_drawn import FREE, Example

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


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_a_run_is_the_same_alone(kind: str, tmp_path: Path) -> None:
    ran = KINDS[kind](tmp_path / kind)
    for found in same(tmp_path / kind, ran, 3):
        assert found.proven
        assert found.explanation.to_dict()["step"]["number"] == found.step - 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_of_a_run_is_the_same_alone(kind: str, tmp_path: Path) -> None:
    same(tmp_path / "run", KINDS[kind](tmp_path / "run"))


def test_a_network_of_a_run_on_a_gpu_is_the_same_on_the_cpu(tmp_path: Path) -> None:
    """The engine of the checkpoint is the GPU's, the steps the compiled kernel's."""
    chosen = gpubp.TrainConfig(lr=RATES, epochs=3, batch_size=8)
    gpubp.train(networks(), training(), chosen, run_dir=tmp_path / "run", engine="cpu")
    resealed(tmp_path / "run", engine="cuda")
    assert len(same(tmp_path / "run", Ran(training(), None, lambda: {"population": networks()}), 3)) == 3


def resealed(folder: Path, **notes: Any) -> None:
    """The digests of a checkpoint that somebody has changed on purpose, and other notes."""
    path = folder / "checkpoint" / "manifest.json"
    manifest = json.loads(path.read_text())
    for entry in manifest["populations"]:
        entry["notes"] |= notes
    manifest["sha256"] = checkpoint._digest(path.parent / manifest["tensors"])
    path.write_text(sealed(manifest))


@pytest.fixture(name="plain", scope="module")
def a_plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven steps of networks that can go on to fifteen; rounds have four."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("gpubp.run.CALL", 100.0)
        patch.setattr("gpubp.run.MOST", 3)
        gpubp.train(networks(), training(), PLAIN, run_dir=folder, engine="eager", reporters=[Stop(5, signal.SIGINT)])
    return folder


PLAIN = gpubp.TrainConfig(lr=RATES, steps=15, batch_size=8, evaluate_every=4, schedule="plateau", plateau_patience=0)
TOLD: dict[str, Any] = {"data": training(), "population": networks()}


def until(steps: int, row: int) -> torch.Tensor:
    """A network's row after so many steps, trained among the others."""
    chosen = gpubp.TrainConfig(**{**PLAIN.to_dict(), "steps": steps})
    return gpubp.train(networks(), training(), chosen, engine="eager").population.params[row]


@pytest.mark.parametrize("step", [1, 5, 7, 8, 9, 15])
def test_the_step_that_is_explained_begins_where_the_run_was_or_would_be(step: int, plain: Path) -> None:
    """Before, at and after the end of a round and the checkpoint; beyond it the training goes on as the run would."""
    found = gpubp.replay(plain, 2, step, **TOLD)
    assert (found.steps, found.status, found.difference) == (7, "running", None)
    assert found.proven == (step <= 7)
    assert ("continuation" in found.text()) == (step > 7)
    expected = networks().params[2] if step == 1 else until(step - 1, 2)
    assert same_bits(found.before.population.params[0], expected)
    told = found.explanation.to_dict()
    assert (told["network"]["row"], told["step"]["number"]) == (2, step - 1)


def test_the_step_of_a_network_that_diverged_is_the_one_that_did_not_count(plain: Path) -> None:
    found = gpubp.replay(plain, 3, **TOLD)
    assert (found.status, found.step, found.proven) == ("diverged", found.steps + 1, True)
    assert not found.explanation.to_dict()["step"]["counts"]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ((5,), ShapeError, "network 5: a row from 0 to 4 of the results expected"),
        ((-1,), ShapeError, "network -1: a row from 0 to 4 of the results expected"),
        (("two",), ConfigError, "network 'two', step None: whole numbers expected"),
        ((2, 0), ConfigError, "step 0: network 2 is running after 7 steps; 1 to 15 expected"),
        ((2, 16), ConfigError, "step 16: network 2 is running after 7 steps; 1 to 15 expected"),
        ((3, 15), ConfigError, r"step 15: network 3 is diverged after \d steps; 1 to \d expected"),
    ],
)
def test_a_network_and_a_step_that_the_run_has_not_are_refused(
    asked: tuple[Any, ...], error: type[Exception], message: str, plain: Path
) -> None:
    with pytest.raises(error, match=message):
        gpubp.replay(plain, *asked, **TOLD)


def test_a_continuation_that_stops_before_the_step_is_refused(tmp_path: Path) -> None:
    chosen = gpubp.TrainConfig(lr=1e-9, epochs=9, batch_size=20, patience=2, min_delta=1.0)
    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("gpubp.run.MOST", 1)
        gpubp.train(networks(), training(), chosen, run_dir=tmp_path / "run", reporters=[Stop(1, signal.SIGINT)])
    assert gpubp.replay(tmp_path / "run", 0, 6, **TOLD).same
    with pytest.raises(ConfigError, match="step 8: network 0 goes on from the checkpoint only to step 6"):
        gpubp.replay(tmp_path / "run", 0, 8, **TOLD)


@pytest.mark.parametrize("name", ["params", "slots.mean", "hyper.lr", "memory.best", "loss"])
def test_a_bit_of_the_checkpoint_that_somebody_changed_is_told(name: str, plain: Path, tmp_path: Path) -> None:
    """With digests that are right again; the networks beside it are as they were."""
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    path = folder / "checkpoint" / json.loads((folder / "checkpoint/manifest.json").read_text())["tensors"]
    content = load_file(path)
    content[f"0.{name}"][2:3] *= 1.5
    save_file(content, path)
    resealed(folder)
    found = gpubp.replay(folder, 2, **TOLD)
    assert not found.same
    assert not found.proven
    part = {"params": "row", "slots.mean": "optimizer's memory", "hyper.lr": "row",
            "memory.best": "evaluations' memory"}.get(name, "end")  # fmt: skip
    assert part in str(found.difference)
    assert "in the run" in found.text()
    assert gpubp.replay(folder, 1, **TOLD).same


def test_a_damaged_checkpoint_and_other_data_are_refused(plain: Path, tmp_path: Path) -> None:
    for told in ({"data": training(2)}, {"validation": held_out()}):
        with pytest.raises(CheckpointError, match=r"(data|validation) differ from those that the run started with"):
            gpubp.replay(plain, 0, **{**TOLD, **told})
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    path = folder / "checkpoint" / json.loads((folder / "checkpoint/manifest.json").read_text())["tensors"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged.* compared with the newest: resume the run first"):
        gpubp.replay(folder, 0, **TOLD)


def test_results_that_are_another_networks_are_told(tmp_path: Path) -> None:
    for name, rate in (("run", 0.01), ("other", 0.02)):
        gpubp.train_many([{"lr": rate}], training(), run_dir=tmp_path / name, **COMMON, epochs=2)
    assert gpubp.replay(tmp_path / "run", 0, data=training()).same
    shutil.copy(tmp_path / "other" / "results.parquet", tmp_path / "run")
    assert "different are its results;" in str(gpubp.replay(tmp_path / "run", 0, data=training()).difference)


def test_how_a_network_began_is_drawn_as_it_is_told(tmp_path: Path) -> None:
    scale = torch.linspace(0.5, 2, COUNT)
    made = gpubp.Population.create(SPEC, COUNT, 5, "kaiming_normal", init_scale=scale)
    gpubp.train(made, training(), gpubp.TrainConfig(steps=2), run_dir=tmp_path / "run", engine="eager")

    def replay(**told: Any) -> gpubp.Replay:
        return gpubp.replay(tmp_path / "run", 3, data=training(), **told)

    assert replay(init="kaiming_normal", init_scale=scale).same
    assert replay(init="kaiming_normal", init_scale=float(scale[3])).same
    assert replay(population=made).same
    assert replay(population=made.take([3])).same
    assert "initial weights that init 'glorot_uniform' does not draw" in str(replay().difference)
    assert replay(population=made.take([2])).difference is not None
    for other in (made.take([0, 1]), made.to(dtype=torch.float64), networks().take(slice(3))):
        with pytest.raises(ConfigError, match=r"population: .* the run's network 3, of .*, is not among them"):
            replay(population=other)


def test_a_stream_of_rows_is_asked_for(tmp_path: Path) -> None:
    ran = streamed(tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=r"was given a stream of rows: replay\(\.\.\., design=\) with the same rows"
    ):
        gpubp.replay(tmp_path / "run", 4, data=ran.data, validation=ran.validation)


def test_a_copy_takes_the_steps_of_its_ancestors(tmp_path: Path) -> None:
    """And a lineage that somebody changed is refused."""
    ran = exchanged_in_folds(tmp_path / "run")
    path = tmp_path / "run" / "lineage.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    lines = {row: list[int]() for row in range(10)}  # of each network the ancestors, the last one first
    for record, (row, line) in itertools.product(reversed(records), lines.items()):
        if (now := [row, *line][-1]) in record["network"]:
            line.append(record["source"][record["network"].index(now)])
    row, line = next(each for each in lines.items() if len(each[1]) > 1 and each[1][-1] != each[0])
    found = gpubp.replay(tmp_path / "run", row, 1, data=ran.data, validation=ran.validation)
    assert found.same
    assert len(found.notes) == len(line)
    assert (found.shown, found.explanation.to_dict()["network"]["row"]) == (line[-1], line[-1])
    assert f"Step 1 is network {line[-1]}'s, of which this one became a copy, and is proven" in found.text()
    assert gpubp.replay(tmp_path / "run", row, data=ran.data, validation=ran.validation).shown == row
    path.write_text(path.read_text().replace('"round": 1', '"round": 2'))
    with pytest.raises(CheckpointError, match=r"lineage\.jsonl is damaged"):
        gpubp.replay(tmp_path / "run", row, data=ran.data, validation=ran.validation)


def test_the_initial_weights_of_one_network_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = exchanged_in_folds(tmp_path / "run")
    counts: list[int] = []

    def counted(*given: Any) -> torch.Tensor:
        counts.append(len(given[3]))
        return initialise(*given)

    monkeypatch.setattr("gpubp.population.initialise", counted)
    assert gpubp.replay(tmp_path / "run", 9, data=ran.data, validation=ran.validation).same
    assert counts == [1]


def interrupted(draw: random.Random, train: Callable[..., Any]) -> None:
    """A training, or a part of it that ends after some calls of the engine, or two parts."""
    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("gpubp.run.MOST", draw.choice([3, 7, 50]))
        train(reporters=[Stop(draw.choice([1, 4, 15, 1000]), signal.SIGINT)])


def check(seed: int, engine: str, folder: Path) -> None:
    """Networks with drawn settings, lengths and samples of their own, interrupted, made longer or neither."""
    own, everyone, draw = Example(seed, engine), list(range(DRAWN)), random.Random(seed)
    interrupted(draw, lambda **more: own.train(everyone, own.lengths, run_dir=folder, **more))
    if draw.random() < 0.3 and own.alike["schedule"] in FREE:
        longer = {own.unit: torch.tensor(own.longer)}
        again = folder, own.data(everyone), own.held_out()
        interrupted(draw, lambda **more: gpubp.resume(*again, **longer, **more))
    found = same(folder, Ran(own.data(everyone), own.held_out(), lambda: {"population": own.population(everyone)}), 2)
    for each in found:
        each.explanation.text(full=True)


def check_search(seed: int, folder: Path) -> None:
    """A drawn search over drawn networks, interrupted or not."""
    draw, unit = random.Random(seed), ["epochs", "steps"][seed % 2]
    length = 9 if unit == "epochs" else 27
    decided = draw.choice([{}, {"restore_best": True}, {"patience": 2}, {"schedule": "plateau", "plateau_patience": 0}])
    every, quantile = draw.choice([1, 2, 3]), draw.choice([0.1, 0.3, 0.5])
    search = draw.choice([
        SuccessiveHalving(factor=2), Hyperband(), PopulationBased(every, quantile, space={"lr": "1e-4..1:log"}),
        PopulationBased(every, quantile, resample=0.7),
    ])  # fmt: skip
    data = training().folds(2) if draw.random() < 0.4 else (training(), draw.choice([None, held_out()]))
    design = [
        {"lr": draw.choice([10.0 ** -draw.uniform(0, 4), 1e308]), "dropout": draw.choice([0.1, 0.4]), "seed": 7 * n,
         "weight_decay": draw.choice([0.01, 0.1]), "init": draw.choice(["normal", None]),
         "widths": draw.choice(["3,6,4", "3,4"]), **({"fold": n % 2} if data[0].networks else {})}
        for n in range(12)
    ]  # fmt: skip
    common = {**COMMON, **decided, unit: length, "evaluate_every": 1, "search": search, "run_dir": folder}
    interrupted(draw, lambda **more: gpubp.train_many(design, *data, **common, **more))
    same(folder, Ran(*data), 3)


@pytest.mark.parametrize("seed", [1, 2])
def test_networks_with_drawn_settings_are_the_same_alone(seed: int, tmp_path: Path) -> None:
    check(seed, "eager", tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, 10))
def test_three_hundred_runs(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check(seed, "cpu" if seed % 5 == 0 else "eager", tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 10))
def test_two_hundred_searches(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check_search(seed, tmp_path / str(seed))
