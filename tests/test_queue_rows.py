"""Rows of a queue that are wrong, late, or have rules of their own: what is trained stays, and errors name the row."""

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.checkpoints.ended import Ended
from gpubp.cli import main
from gpubp.engines import choose_for_all
from gpubp.errors import CheckpointError, ConfigError, DataError, GpubpError
from gpubp.evaluate import Evaluation
from gpubp.networks import Figures, spread
from gpubp.runs import making
from gpubp.runs.design import Design
from gpubp.runs.run import Run, Sets
from gpubp.state import TrainState
from gpubp.system.ambient import HOME

from .commands import Capture
from .helpers import covering, noted, same_bits
from .short_runs import Crash, hears
from .test_design import data
from .test_queue import both

ALIKE = [{"widths": "3,5,4", "lr": 0.01 * (1 + n), "seed": n} for n in range(12)]
SETS = data(), data(9)


def train(design: Any, **more: Any) -> gpubp.Result:
    common = {"loss": "cross_entropy", "epochs": 3, "batch_size": 8, "engine": "eager"}
    return gpubp.train_many(design, *SETS, **{**common, **more})


@pytest.fixture(name="whole", scope="module")
def all_at_once() -> gpubp.Result:
    return train(ALIKE)


def with_one(row: int, **settings: Any) -> list[dict[str, Any]]:
    return [{**each, **settings} if number == row else each for number, each in enumerate(ALIKE)]


def broken(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from rows[:9]
    raise RuntimeError("the database is gone")


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: iter(with_one(9, lr="fast")), ConfigError, "design: row 9: lr 'fast'"),
    (lambda: iter(with_one(9, hidden="none")), ConfigError, "design: row 9: .*'none' is unknown"),
    (lambda: iter([*ALIKE[:9], "3,5,4"]), ConfigError, "design: row 9 is a str; a mapping of settings"),
    (lambda: iter(with_one(9, widths="7,5,4")), ConfigError, "row 9: widths from 3 to 4 and from 7 to 4"),
    (lambda: iter(with_one(9, widths="7,5,4")[:10]), ConfigError, "row 9: widths from 3 to 4 and from 7 to 4"),
    (lambda: iter(with_one(9, lrr=1)), ConfigError, "design: row 9: column 'lrr' is unknown; did you mean 'lr'"),
    (lambda: iter(with_one(9, loss="huber")), ConfigError, "row 9: losses with different metrics, accuracy and r2"),
    (lambda: broken(ALIKE), RuntimeError, "the database is gone"),
]


@pytest.mark.parametrize(("wrong", "slots"), covering(range(len(WRONG)), [3, 4], meet=1))
def test_a_wrong_row_of_a_stream_ends_the_run_which_is_saved_and_resumes_once_it_is_right(
    wrong: int, slots: int, whole: gpubp.Result, tmp_path: Path
) -> None:
    folder, (stream, kind, message) = tmp_path / "run", WRONG[wrong]
    with pytest.raises((kind, GpubpError), match=message) as raised:
        train(stream(), slots=slots, run_dir=folder)
    early = raised.value.result  # type: ignore[attr-defined]
    trained = early.table["network"].to_pylist()
    assert trained == list(range(len(trained))), "no row is lost, none is there twice"
    assert len(trained) >= 8
    assert early.loss.tolist() == whole.loss[: len(trained)].tolist()
    assert any("continue with gpubp.resume" in note for note in raised.value.__notes__)
    with pytest.raises(CheckpointError, match=r"was given a stream of rows: resume\(..., design=\)"):
        gpubp.resume(folder, *SETS)
    resumed = gpubp.resume(folder, *SETS, design=iter(ALIKE))
    assert repr(resumed.table.to_pydict()) == repr(whole.table.to_pydict())


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, ConfigError, "row 9: momentum is not a hyper-parameter"),
        ({"widths": "7,5,4"}, ConfigError, "row 9: widths from 3 to 4 and from 7 to 4"),
        ({"init": "none"}, ConfigError, "row 9: init 'none' is unknown"),
        ({"lrr": 1}, ConfigError, "design: row 9: column 'lrr' is unknown; did you mean 'lr'"),
        ({"fold": 5}, DataError, "row 9: fold 5: the data have 3"),
        ({"loss": "mean_squared_error"}, ConfigError, "row 9: losses with different metrics"),
    ],
)  # fmt: skip
def test_a_wrong_row_of_a_known_design_is_refused_before_anything_is_trained(
    settings: dict[str, Any], kind: type[GpubpError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        gpubp.train_many(
            [{"fold": 0, "loss": "cross_entropy", **each} for each in with_one(9, **settings)], *both(), slots=4,
            engine="eager", epochs=2, run_dir=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_data_that_a_later_loss_cannot_take_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    samples = gpubp.Dataset(torch.ones(6, 3), -torch.ones(6, 2))
    rows = [{"widths": "3,2", "loss": "mean_squared_error"}] * 3 + [{"widths": "3,2", "loss": "poisson"}]
    with pytest.raises(DataError, match="poisson needs 0 or more"):
        gpubp.train_many(rows, samples, slots=2, engine="eager", epochs=2, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rounds_are_counted_on_where_all_networks_are_of_another_kind(tmp_path: Path) -> None:
    rows = [{"widths": "3,5,4", "epochs": 4}] * 3 + [{"widths": "3,2,4", "epochs": 2}] * 3
    folder = tmp_path / "run"
    common = {"loss": "cross_entropy", "batch_size": 8, "engine": "eager"}
    result = gpubp.train_many(rows, *SETS, slots=3, run_dir=folder, checkpoint_minutes=0.0, **common)
    assert [each["round"] for each in result.history] == list(range(1, 7))
    resumed = gpubp.resume(folder, *SETS)
    assert resumed.history == result.history
    assert not [note for note in resumed.notes if "damaged" in note]


def rule(factor: float) -> gpubp.Activation:
    """A rule in no table."""

    def bent(net: Tensor) -> Tensor:
        return factor * net

    def bent_slope(net: Tensor, out: Tensor) -> Tensor:
        return torch.full_like(net, factor)

    return gpubp.Activation(bent, bent_slope)


@pytest.mark.parametrize("common", [False, True])
def test_rules_in_no_table_pass_through_slots(common: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bent = rule(0.5)
    own = [{**each, "hidden": bent} for each in ALIKE]
    whole, folder = train(own), tmp_path / "run"
    more = {"run_dir": folder, "checkpoint_minutes": 0.0}
    given = train(iter(ALIKE), slots=4, hidden=bent, **more) if common else train(own, slots=4, **more)
    monkeypatch.setitem(gpubp.ACTIVATIONS, "bent", bent)
    resumed = gpubp.resume(folder, *SETS, design=iter(ALIKE) if common else None)
    for result in (given, resumed):
        assert repr(result.table.to_pydict()) == repr(whole.table.to_pydict())


@pytest.mark.parametrize("slots", [2, 12])
def test_two_rules_of_one_name_are_refused(slots: int) -> None:
    with pytest.raises(ConfigError, match="two rules for hidden have the name 'bent'"):
        train(iter([{**ALIKE[n], "hidden": rule(0.5 if n < 3 else 2.0)} for n in range(6)]), slots=slots)


def test_settings_of_a_stream_may_be_tensors_and_tuples(tmp_path: Path) -> None:
    rows = [{"lr": 0.1 * (1 + n)} for n in range(5)]
    settings = {"widths": (3, 5, 4), "class_weight": torch.tensor([1.0, 2.0, 1.0, 1.0])}
    whole = train(rows, **settings)
    early = train(iter(rows), slots=2, run_dir=tmp_path / "run", **settings)
    again = gpubp.resume(tmp_path / "run", *SETS, design=iter(rows))
    for result in (early, again):
        assert result.loss.tolist() == whole.loss.tolist()


def test_a_stream_of_other_rows_or_fewer_is_refused_and_one_that_has_ended_is_not_needed(tmp_path: Path) -> None:
    whole = train(iter(ALIKE), slots=4, run_dir=tmp_path / "run")
    again = gpubp.resume(tmp_path / "run", *SETS)
    assert repr(again.table.to_pydict()) == repr(whole.table.to_pydict())
    with pytest.raises(ConfigError, match=r"design: row 11 is .*'lr': 0\.5.* and was .*'lr': 0\.12"):
        gpubp.resume(tmp_path / "run", *SETS, design=iter(with_one(11, lr=0.5)))
    with pytest.raises(ConfigError, match="fewer rows than the 12 that the run has had"):
        gpubp.resume(tmp_path / "run", *SETS, design=iter(ALIKE[4:]))


def test_a_run_that_is_moved_keeps_its_networks(whole: gpubp.Result, tmp_path: Path) -> None:
    folder, elsewhere, moved = tmp_path / "run", tmp_path / "elsewhere", []

    def move(record: Any) -> None:
        if not moved and (folder / "ended" / "0.rows").exists():
            moved.append(folder.rename(elsewhere))

    result = train(ALIKE, slots=4, run_dir=folder, checkpoint_minutes=0.0, reporters=[hears(evaluated=move)])
    assert moved
    assert result.unsaved is not None
    assert repr(result.table.to_pydict()) == repr(whole.table.to_pydict())
    resumed = gpubp.resume(elsewhere, *SETS)
    assert repr(resumed.table.to_pydict()) == repr(result.table.to_pydict())


@pytest.mark.parametrize("other", [0.2, None])
def test_what_the_table_has_where_something_is_off_depends_on_no_slots(other: float | None) -> None:
    rows = [{"widths": "3,5,4", "dropout": [0.0, other][n % 2]} for n in range(4)]
    rows += [{"widths": "3,2,4", "lr": 0.1}] * 2
    whole, found = train(rows), train(rows, slots=3)
    assert repr(found.table.to_pydict()) == repr(whole.table.to_pydict())
    assert ("dropout" in whole.table.column_names) == (other == 0.2)


def test_inspect_shows_the_networks_that_have_left_a_run_that_was_killed(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "run"
    rows = [{**row, "epochs": 1 + 2 * (n % 3), "init": "orthogonal" if n % 2 else None} for n, row in enumerate(ALIKE)]

    with pytest.raises(RuntimeError, match="crashed"):
        train(rows, slots=4, run_dir=folder, checkpoint_minutes=0.0, reporters=[Crash(6)])
    assert main(["inspect", str(folder), "--json", "--top", "12"]) == 0
    out, err = capsys.readouterr()
    assert f"{folder} has not ended: these are the networks that have left their slots" in err
    found, whole = json.loads(out), train(rows)
    assert found["statuses"] == {"finished": found["networks"]}
    assert 4 < found["networks"] < 12
    losses = {each["network"]: each["validation_loss"] for each in found["best"]}
    assert [*losses] != [*range(len(losses))], "long ones are still there"
    assert losses == {row: float(whole.validation_loss[row]) for row in losses}  # type: ignore[index]
    assert "init" in [each["name"] for each in found["effects"]]
    gpubp.resume(folder, *SETS)
    assert main(["inspect", str(folder)]) == 0
    assert "has not ended" not in capsys.readouterr().err


def test_records_that_are_gone_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def remove(record: Any) -> None:
        if (folder / "ended" / "0.rows").exists():
            shutil.rmtree(folder)

    with pytest.raises(CheckpointError, match=r"0\.rows, of networks that have ended, cannot be read: No such file"):
        train(ALIKE, slots=4, run_dir=folder, checkpoint_minutes=0.0, reporters=[hears(evaluated=remove)])


def anonymous() -> int:
    """Bytes of this process that are in no file."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("/proc/self/status, which says how much memory is in no file, is missing")
    return 1024 * int(status.read_text().partition("RssAnon:")[2].split()[0])


def test_very_many_networks_that_have_left_take_no_memory_before_somebody_asks_for_them(tmp_path: Path) -> None:
    count, data, rows = 100_000, SETS[0], torch.arange(100_000)
    population = gpubp.Population.create(gpubp.NetworkSpec((3, 4), loss="cross_entropy"), count)
    config = spread(gpubp.TrainConfig(steps=1), count)
    choice = choose_for_all("eager", population.spec, config, [HOME], torch.float32, data)
    run = Run(TrainState.start(population, config, data), config, Sets(data), choice, [HOME], rows)
    log = Ended(tmp_path)
    log.add(run.saved(), Figures(Evaluation(rows.double(), rows.double()), None, rows.short()))
    log.write()
    before = anonymous()
    (outcome,) = log.outcomes()
    assert anonymous() - before < 8 * count
    assert same_bits(outcome.state.population.params, population.params)
    assert outcome.training.loss.tolist() == rows.tolist()


def test_few_rows_of_a_long_design_need_the_memory_of_few() -> None:
    design = Design.of({"lr": torch.linspace(0.1, 0.2, 1_000_000)}, widths="3,5,4")
    tracemalloc.start()
    part = design.part(500_000, 500_003)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (part.first, len(part)) == (500_000, 3)
    assert most < 1 << 16


def test_a_zero_that_means_off_is_a_number_like_others_in_the_engine_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = noted(monkeypatch, making, "choose_for_all", lambda name, spec, config, *more: config.recipe(spec).hyper)
    rows = [{**each, "dropout": 0.1 * (number > 5)} for number, each in enumerate(ALIKE)]
    result = train(rows, slots=4)
    assert result.table["dropout"].to_pylist() == [0.0] * 6 + [0.1] * 6
    assert [each.recipe.hyper for each in result.states][:1] == asked
    assert result.loss.tolist() == train(rows).loss.tolist()
