"""Patience, a target loss and the best row, per network: what a plain loop over one network at a time gives."""

import itertools
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import ENGINES, choose
from gpubp.errors import ConfigError
from gpubp.placing import placement
from gpubp.placing.compaction import Compaction
from gpubp.state import Status, TrainState

from .helpers import compiled, generator, population, quick, same_bits, samples  # noqa: F401
from .playing import machine
from .recorder import recorded
from .short_runs import Stop, same, stopped

SPEC = gpubp.NetworkSpec((3, 6, 4), "relu", loss="cross_entropy")
COUNT = 5
CPU = torch.device("cpu")
ROWS = [range(n, 22 + 2 * n) for n in range(COUNT)]
RATES = torch.logspace(-2.5, 0.5, COUNT)
SETTINGS: dict[str, dict[str, Any]] = {
    "patience": {"patience": 2},
    "patience per network": {"patience": [1, 2, 3, float("inf"), 1], "restore_best": True},
    "min_delta": {"patience": 2, "min_delta": 0.03, "restore_best": True},
    "tol": {"patience": 2, "tol": [0.02, 0.03, 0.05, 0.0, 10.0], "restore_best": True},
    "metric": {"patience": [1, 2, 3, 2, 4], "monitor": "metric", "restore_best": True},
    "metric by more": {"patience": 2, "monitor": "metric", "min_delta": 0.04},
    "metric by tol": {"patience": 3, "monitor": "metric", "tol": 0.04, "restore_best": True, "target_loss": 1.3},
    "target": {"target_loss": 1.46},
    "target and patience": {"target_loss": 1.46, "patience": 3, "restore_best": True},
    "best only": {"restore_best": True},
    "within a round": {"restore_best": True, "patience": 4, "epochs": None, "steps": 44, "evaluate_every": 5},
    "some diverge": {
        "patience": 3, "restore_best": True, "optimizer": "sgd", "lr": [0.1, 1e200, 0.4, 1e9, 3], "epochs": 5
    },
}  # fmt: skip


def training() -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, 50), rows=ROWS)


def held_out() -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, 30, seed=9))


def config(**settings: Any) -> gpubp.TrainConfig:
    given = {"lr": RATES, "batch_size": 8, "epochs": 14, "evaluate_every": 1}
    return gpubp.TrainConfig(**{**given, **settings})


def train(validation: bool = True, run_dir: Path | None = None, **more: Any) -> gpubp.Result:
    networks = population(SPEC, COUNT)
    chosen = more.pop("config", None) or config(**more.pop("settings", {}))
    return gpubp.train(
        networks, training(), chosen, held_out() if validation else None, run_dir=run_dir,
        checkpoint_minutes=0.0, **more,
    )  # fmt: skip


def alone(n: int, chosen: gpubp.TrainConfig, engine: str, validation: bool) -> tuple[Any, ...]:
    """Network n alone, in a loop as one writes it for Keras. -> row, status, step, best step, best figure."""
    mine, data, looks = chosen.take(torch.tensor([n])), training(), held_out()
    networks = population(SPEC, ids=[n])
    state, by = TrainState.start(networks, mine, data, torch.tensor([n])), choose(engine, SPEC, mine, CPU).engine
    size, batch, every, steps = len(ROWS[n]), mine.batch_size, mine.evaluate_every or 1, int(state.end)
    usual = ("patience", float("inf")), ("min_delta", 0.0), ("target_loss", -float("inf")), ("tol", None)
    patience, least, target, tol = (
        default if (value := getattr(mine, name)) is None else float(torch.as_tensor(value)) for name, default in usual
    )
    best, best_step, row, waited, number, status = float("inf"), -1, None, 0, 0, Status.running
    while status == Status.running and int(state.step) < steps:
        number += 1
        whole = number * every if mine.steps else -(-number * every * size // batch)
        before, state.limit[0], state.total[0] = int(state.step), min(whole, steps), 0
        by.run(state, data, steps)
        if state.status[0] == Status.diverged:
            status = Status.diverged
            break
        mean = float(state.total[0]) / (int(state.step) - before)
        found = by.evaluate(networks, looks, state.hyper, state.position)
        loss = float(found.loss[0]) if validation else mean
        cost = -float(found.metric[0]) if mine.monitor == "metric" else loss
        enough = cost < best - least if tol is None else cost <= best - tol
        if cost < best - least:
            best, best_step, row = cost, int(state.step), networks.params[0].clone()
        if enough:
            waited = 0
        elif int(state.step) == whole:
            waited += 1
        if int(state.step) == whole:
            status = Status.converged if loss <= target else Status.stopped if waited >= patience else status
    status = Status.finished if status == Status.running else status
    restored = networks.params[0] if row is None or not mine.restore_best else row
    return restored, status, int(state.step), best_step, best


ALONE = [
    ("patience", True, "cpu"), ("patience per network", True, "cpu"), ("min_delta", True, "cuda"),
    ("tol", True, "cpu"), ("metric", True, "cpu"), ("metric by more", True, "eager"), ("metric by tol", True, "cpu"),
    ("target", False, "eager"), ("target and patience", True, "cpu"), ("best only", True, "cpu"),
    ("within a round", True, "cpu"), ("some diverge", False, "eager"),
]  # fmt: skip
EVERY = itertools.product(SETTINGS, [True, False], ["eager", "cpu", "cuda"])
EVERY = [each for each in EVERY if each[1] or "monitor" not in SETTINGS[each[0]]]


@pytest.mark.parametrize(("name", "validation", "engine"), quick(EVERY, ALONE))
def test_every_network_ends_as_in_a_loop_over_one_at_a_time(name: str, validation: bool, engine: str) -> None:
    """On a GPU, which is played, with the bits of the loop on a CPU."""
    chosen, played = config(**SETTINGS[name]), engine == "cuda"
    with machine() if played else nullcontext():
        result = train(validation, config=chosen, engine=engine, device="cuda:0" if played else "cpu")
    for n in range(COUNT):
        row, status, step, best_step, best = alone(n, chosen, "cpu" if played else engine, validation)
        assert same_bits(result.population.params[n], row), n
        assert (result.status_names[n], int(result.state.step[n])) == (status.name, step)
        if result.state.recipe.tracks and status != Status.finished:  # the last evaluation may not be of a whole round
            assert int(result.state.memory["best_step"][n]) == best_step
            known = gpubp.stopping.best(result.state)
            assert float(-known["metric"][n] if chosen.monitor == "metric" else known["loss"][n]) == best
    assert len(result.statuses) >= 2 or name == "best only", "the setting does something"


SHARED = [("patience", "cpu"), ("some diverge", "eager")]


@pytest.mark.parametrize(("name", "engine"), quick(itertools.product(SETTINGS, ["cpu", "eager"]), SHARED))
def test_neither_calls_nor_compaction_nor_shares_change_a_bit(
    name: str, engine: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if engine == "cpu":
        request.getfixturevalue("compiled")
    monkeypatch.setattr("gpubp.placing.compaction.FULL", 0.0)
    whole = train(settings=SETTINGS[name], engine=engine)
    monkeypatch.setattr("gpubp.placing.compaction.FULL", 1.0)
    monkeypatch.setattr("gpubp.runs.run.CALL", 100.0)
    monkeypatch.setattr("gpubp.runs.run.MOST", 3)
    same(train(settings=SETTINGS[name], engine=engine), whole)
    monkeypatch.setattr("gpubp.runs.run.placed", placement.Shards)
    if engine == "cpu":
        same(train(settings=SETTINGS[name], engine=engine, device=["cpu"] * 3), whole)
    else:
        monkeypatch.setattr("gpubp.placing.placement.fitting", lambda *_: 2)  # networks of a shard at once
        same(train(settings=SETTINGS[name], engine=engine, device=["cpu"] * 2), whole)
        with recorded(3):
            same(train(settings=SETTINGS[name], engine=engine, device=["cpu"]), whole)


def test_networks_that_have_ended_are_trained_and_evaluated_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, evaluated, engine = [], [], ENGINES["eager"]

    def run(state: TrainState, *rest: Any) -> None:
        trained.append(state.population.count)
        engine.run(state, *rest)

    def figures(networks: gpubp.Population, *rest: Any) -> Any:
        evaluated.append(networks.count)
        return engine.evaluate(networks, *rest)

    monkeypatch.setitem(ENGINES, "eager", engine._replace(run=run, evaluate=figures))
    result = train(settings={"patience": 2}, engine="eager")
    running = [record["statuses"]["running"] for record in result.history]
    assert evaluated[: len(running)] == [COUNT, *running[:-1]], "who ran in the round"
    assert sorted(set(trained), reverse=True) == sorted({COUNT, *running} - {0}, reverse=True)
    assert evaluated[len(running) :] in ([COUNT], [COUNT, COUNT]), "the figures at the end are of all"


@pytest.mark.parametrize(("name", "call"), [("patience per network", 2), ("within a round", 9)])
def test_a_stopped_run_resumes_to_the_same_networks(name: str, call: int, tmp_path: Path, short_calls: None) -> None:
    whole = train(settings=SETTINGS[name])
    stopped(lambda: train(settings=SETTINGS[name], run_dir=tmp_path / "run", reporters=[Stop(call, 2)]))
    again = gpubp.resume(tmp_path / "run", training(), held_out())
    same(again, whole)
    assert same_bits(gpubp.load(tmp_path / "run").population.params, whole.population.params)


def late(name: str, does: str, takes: str, every: str, has: int) -> str:
    return (
        f"{name} never {does} a network{' early' * (does == 'stops')}: it takes {takes}, one every {every}, and the "
        f"training has {has}: evaluate_every says how often"
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 50, "patience": 1.0, "restore_best": True},
         [late("patience", "stops", "2 evaluations", "100 steps", 50),
          late("restore_best", "restores", "1 evaluation", "100 steps", 50)]),
        ({"steps": 30, "patience": 2, "evaluate_every": 10},
         [late("patience", "stops", "3 evaluations", "10 steps", 30)]),
        ({"steps": 31, "patience": torch.tensor([2, 3, 4]), "restore_best": True, "evaluate_every": 10}, []),
        ({"steps": [50, 100, 120], "restore_best": True}, []),
        ({"epochs": 5, "patience": 5, "target_loss": 0.1}, [late("patience", "stops", "6 evaluations", "1 epoch", 5)]),
        ({"epochs": 1, "target_loss": 0.1}, [late("target_loss", "stops", "1 evaluation", "1 epoch", 1)]),
        ({"epochs": 3, "patience": 1}, []),
        ({"epochs": 3, "patience": math.inf}, []),
        ({"epochs": 3, "patience": [math.inf] * 3, "evaluate_every": 2}, []),
    ],
)  # fmt: skip
def test_a_note_says_what_comes_too_late_to_stop_or_restore_any_network(
    settings: dict[str, Any], told: list[str]
) -> None:
    spec = gpubp.NetworkSpec((3, 4), loss="cross_entropy")
    data = gpubp.Dataset(torch.randn(20, 3), torch.arange(20) % 4)
    population = gpubp.Population.create(spec, 3)
    result = gpubp.train(population, data, gpubp.TrainConfig(**settings), data, engine="eager")
    assert [note for note in result.notes if "never" in note] == told
    if "restore_best" in settings:
        assert None not in result.table["best_step"].to_pylist(), "its end is the best that is known of a short one"


def test_the_results_say_when_a_network_stopped_and_was_best(tmp_path: Path) -> None:
    result = train(settings=SETTINGS["target and patience"], run_dir=tmp_path / "run")
    rows = gpubp.results.saved.read_results(tmp_path / "run" / "results.parquet").to_pylist()
    for row, best in zip(rows, result.state.memory["best_loss"][:, 0].tolist()):
        assert row["stopped_step"] == (row["steps"] if row["status"] in ("stopped", "converged") else None)
        assert row["best_step"] <= row["steps"]
        assert row["best_loss"] == best
        if row["status"] != "finished":
            assert row["validation_loss"] == pytest.approx(best, rel=1e-12)
    assert {row["status"] for row in rows} >= {"stopped", "converged"}


def test_the_results_say_that_a_network_was_best_at_its_end_within_a_round() -> None:
    inputs = torch.randn(20, 3, generator=generator(0))
    data = gpubp.Dataset(inputs, inputs.sum(1))
    chosen = gpubp.TrainConfig("sgd", lr=[0.01, 1.5], steps=25, evaluate_every=10, restore_best=True, batch_size=20)
    result = gpubp.train(gpubp.Population.create(gpubp.NetworkSpec((3, 1)), 2), data, chosen, data, engine="eager")
    found, last = result.table.to_pydict(), [each["validation_loss"]["min"] for each in result.history]
    assert last == sorted(last, reverse=True)
    assert found["best_step"][0] == 25 > found["best_step"][1] == 10
    assert found["best_loss"] == found["validation_loss"] == result.best_loss.tolist()


@pytest.mark.parametrize("slots", [None, 2])
def test_the_best_loss_is_in_the_results_where_a_network_has_one(slots: int | None) -> None:
    sets = (gpubp.Dataset(*samples(SPEC, 20)),) * 2
    rows = [{"restore_best": True, "steps": 30}, {"steps": 30}, {"restore_best": True, "steps": 5}, {"patience": 3}]
    common = {"widths": "3,6,4", "loss": "cross_entropy", "engine": "eager", "evaluate_every": 10, "lr": 0.01}
    result = gpubp.train_many([{"steps": 30, **row} for row in rows], *sets, slots=slots, **common)
    found = result.table.to_pydict()
    assert found["best_step"] == [30, None, 5, 30], "the end of a training shorter than a round too"
    losses = found["validation_loss"]
    assert found["best_loss"] == [losses[0], None, pytest.approx(losses[2]), pytest.approx(losses[3])]
    assert [None if each != each else each for each in result.best_loss.tolist()] == found["best_loss"]
    plain = gpubp.train_many([{"steps": 30}], *sets, **common)
    assert "best_loss" not in plain.table.column_names
    assert plain.best_loss is None


def test_by_default_a_network_is_evaluated_after_its_epoch_whatever_others_train() -> None:
    for name in ("patience", "target_loss"):
        assert gpubp.TrainConfig(epochs=500, **{name: 3}).interval == 1
        assert gpubp.TrainConfig(steps=[5, 90000], **{name: 3}).interval == 100
    assert gpubp.TrainConfig(epochs=500, restore_best=True).interval == 1
    assert gpubp.TrainConfig(epochs=500, min_delta=0.0).interval == 5  # which decides nothing alone


def test_patience_has_its_evaluations_without_anything_else_that_looks() -> None:
    chosen = gpubp.TrainConfig(lr=0.5, batch_size=8, epochs=40, patience=1)
    result = gpubp.train(population(SPEC, COUNT), training(), chosen, engine="eager")
    assert result.statuses["stopped"] == COUNT
    assert len(result.history) < 40


def test_a_step_does_not_read_what_stops_a_network() -> None:
    plain, stopping = config().recipe(SPEC), config(patience=3, min_delta=0.1, target_loss=0.1).recipe(SPEC)
    assert plain.read == stopping.read


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patience": 0}, r"patience is 0; a number in \[1, inf\] expected"),
        ({"patience": [2, float("nan")]}, "patience"),
        ({"target_loss": float("inf")}, "target_loss is inf"),
        ({"min_delta": -0.1, "patience": 2}, "min_delta is -0.1"),
        ({"min_delta": ["none"], "patience": 2}, "min_delta holds str 'none'"),
        ({"min_delta": 0.1}, "min_delta and monitor do nothing without patience or"),
        ({"monitor": "metric", "target_loss": 0.1}, "min_delta and monitor do nothing without patience or"),
        ({"monitor": "val_accuracy", "patience": 2}, "monitor 'val_accuracy' is unknown; allowed: loss, metric"),
        ({"tol": 0.1, "restore_best": True}, "tol needs patience"),
        ({"tol": 0.1, "min_delta": 0.1, "patience": 2}, "min_delta and tol both say"),
        ({"restore_best": "yes"}, "restore_best 'yes': True or False expected"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(**settings)


def test_no_copy_is_made_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    state = TrainState.start(population(SPEC, COUNT), config(), training())
    networks = Compaction(state, choose("eager", SPEC, config(), CPU))
    monkeypatch.setattr("gpubp.system.free.available", lambda _: 0)
    networks.compact(torch.arange(COUNT) < 2)
    assert networks.active is state
