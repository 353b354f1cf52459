"""A queue: the rows of a design stream through slots, and no network knows which others trained beside it."""

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp.checkpoints import ended
from gpubp.cli import main
from gpubp.errors import ConfigError
from gpubp.placing import placement
from gpubp.results.saved import read_results

from .helpers import alike, same_bits
from .short_runs import APART, Stop, calls_of_three_steps, hears, stopped
from .test_design import FOLDS, data, rows, train

USED = (0, 1, 4, 7, 8)  # of two kinds: one has patience, one diverges, one starts otherwise
COMMON = {"loss": "cross_entropy", "epochs": 6, "batch_size": 8, "seed": 3}
MANY = [{**row, "seed": 10 * again + row["seed"]} for again in range(2) for row in rows() if row["seed"] in USED]


@pytest.fixture(name="whole", scope="module")
def all_at_once() -> gpubp.Result:
    return train(MANY)


def same(one: gpubp.Result, other: gpubp.Result) -> None:
    """The same networks with the same figures."""
    assert repr(one.table.to_pydict()) == repr(other.table.to_pydict())
    for row in range(one.populations.count):
        assert alike(one.network(row), other.network(row)), row


@pytest.mark.parametrize("slots", [1, len(MANY) - 1])
def test_a_design_that_streams_through_slots_gives_what_it_gives_at_once(
    slots: int, whole: gpubp.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its table is made in pieces, as that of very many networks."""
    monkeypatch.setattr("gpubp.results.table.PIECE", 4)
    folder = tmp_path / "run" if slots == 1 else None
    result = train(MANY, slots=slots, run_dir=folder)
    same(result, whole)
    assert [len(each) for each in result.results.pieces()] == [4, 4, 2]
    if folder is None:
        return
    model = gpubp.load(folder)
    assert model.ranking().tolist() == whole.ranking().tolist()
    for row in range(len(MANY)):
        assert alike(model.network(row), whole.network(row)), row
    rows = read_results(folder / "results.parquet")
    assert repr(rows.to_pydict()) == repr(whole.table.to_pydict())
    assert len((folder / "results.csv").read_text().splitlines()) == len(MANY) + 1


@pytest.mark.cpu("runs the engine cpu")
@pytest.mark.parametrize("place", ["home", "shards"])
def test_on_the_engine_cpu_too(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "shards":
        monkeypatch.setattr("gpubp.runs.run.placed", placement.Shards)
    some = [row for row in MANY if row.get("optimizer") == "adam" and row["widths"] == "3,6,4"]
    same(train(some, slots=2, engine="cpu"), train(some, engine="cpu"))


@pytest.mark.parametrize("slots", [3, 1000])
def test_rows_may_come_from_a_generator_one_by_one(slots: int, whole: gpubp.Result) -> None:
    """Of what has no length until its end is seen."""
    asked: list[int] = []

    def stream() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(MANY):
            asked.append(number)
            yield row

    begun, seen = list[Any](), list[tuple[int, Any]]()
    watch = hears(start=begun.append, progress=lambda progress: seen.append((len(asked), progress)))
    result = train(stream(), slots=slots, reporters=[watch])
    same(result, whole)
    if slots == 3:
        assert [(each.steps, each.networks) for each in begun] == [(0, 3)]
        assert begun[0].text.startswith("3 networks at a time")
        assert seen[0][0] < 6, "a row is asked for when there is a slot for it"
        assert seen[0][1].steps == 0
    assert seen[-1][1].steps >= seen[-1][1].done == result.network_steps, "some stop before their end"


def test_networks_of_one_kind_are_one_population_in_order() -> None:
    alike = [{"widths": "3,5,4", "lr": 0.01 * (1 + n % 5), "epochs": 1 + (7 * n) % 5} for n in range(20)]
    one, other = train(alike, data()), train(alike, data(), slots=4)
    assert len(other.populations.each) > 1
    assert same_bits(one.population.params, other.population.params)
    assert same_bits(one.state.step, other.state.step)


@pytest.fixture(name="half", scope="module")
def a_run_that_was_stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, gpubp.Result]:
    folder = tmp_path_factory.mktemp("half") / "run"
    with calls_of_three_steps():
        return folder, stopped(lambda: train(MANY, slots=4, run_dir=folder, reporters=[Stop(31, signal.SIGINT)]))


def test_an_interrupted_queue_resumes_to_the_same_networks(
    half: tuple[Path, gpubp.Result], whole: gpubp.Result, tmp_path: Path
) -> None:
    folder, early = Path(shutil.copytree(half[0], tmp_path / "run")), half[1]
    count = early.populations.count
    assert early.table["network"].to_pylist() == list(range(count))
    assert len(gpubp.load(folder)) == count
    assert 0 < early.statuses["running"] <= 4 < count
    assert early.waiting == len(MANY) - count > 0
    assert early.fates.endswith(f"{early.waiting:,} waiting")
    same(gpubp.resume(folder, *both()), whole)
    again = gpubp.resume(folder, *both())
    assert (again.network_steps, again.waiting) == (0, 0)
    same(again, whole)


def both() -> tuple[gpubp.Dataset, gpubp.Dataset]:
    return data(rows=FOLDS), data(9)


def test_files_do_not_become_more(tmp_path: Path) -> None:
    alike = [{"widths": "3,5,4", "lr": 0.1, "seed": n} for n in range(12)]
    few, many = tmp_path / "few", tmp_path / "many"
    train(alike, data(), slots=6, run_dir=few, epochs=1)
    train(alike, data(), slots=2, run_dir=many, epochs=1)
    names = [sorted(str(each.relative_to(run)) for each in run.rglob("*")) for run in (few, many)]
    kinds = [{name.partition("-")[0] for name in each} for each in names]
    assert kinds[0] == kinds[1]
    assert len(names[0]) == len(names[1])


@pytest.mark.parametrize("damage", ["flipped", "longer"])
def test_of_damaged_records_the_previous_checkpoint_knows_nothing_and_later_ones_are_dropped(
    damage: str, whole: gpubp.Result, half: tuple[Path, gpubp.Result], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(half[0], tmp_path / "run"))
    log = folder / ended.FOLDER / "0.rows"
    content = log.read_bytes()
    log.write_bytes(content + b"half" if damage == "longer" else bytes([content[0] ^ 1]) + content[1:])
    resumed = gpubp.resume(folder, *both())
    told = [note for note in resumed.notes if "0.rows is damaged: its SHA-256" in note]
    assert bool(told) == (damage == "flipped")
    same(resumed, whole)


def test_a_disk_that_is_full_for_a_while_loses_nothing(
    whole: gpubp.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, write = [9], ended.Log.write

    def full(log: ended.Log) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(28, "No space left on device")
        write(log)

    monkeypatch.setattr(ended.Log, "write", full)
    monkeypatch.setattr(ended, "PENDING", 0)
    folder = tmp_path / "run"
    result = train(MANY, slots=4, run_dir=folder, checkpoint_minutes=0.0)
    told = [note for note in result.notes if "networks that have ended cannot be written" in note]
    assert sum("they stay in memory" in note for note in told) == 1
    assert len(told) == 2, "one is of the checkpoint"
    assert result.unsaved is None
    same(result, whole)
    assert len(gpubp.load(folder)) == len(MANY)


@pytest.mark.parametrize(
    ("slots", "more", "message"),
    [(0, {}, "slots 0: a whole number"), (2.5, {}, "slots 2.5"), (True, {}, "slots True"),
     (3, {"search": object()}, "there are 3 slots, fewer")],
)  # fmt: skip
def test_slots_that_cannot_be_are_refused(slots: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(MANY, slots=slots, **more)
    with pytest.raises(ConfigError, match="the design has no rows"):
        train(iter(()), slots=3)


def begin(folder: Path) -> None:
    gpubp.train_many(MANY, *both(), slots=4, engine="eager", run_dir=folder, checkpoint_minutes=0.0, **COMMON)


def killed(folder: Path, after: float) -> bool:
    """Start the training in a process and kill it. -> whether it was killed before its end"""
    process = APART.Process(target=begin, args=(folder,))
    process.start()
    manifest = folder / "checkpoint" / "manifest.json"
    while not manifest.exists() and process.is_alive():
        time.sleep(0.001)
    time.sleep(after)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("count", [1, pytest.param(200, marks=pytest.mark.slow("kills two hundred processes"))])
def test_a_queue_that_is_killed_at_any_instant_resumes_to_the_same_networks(
    count: int, whole: gpubp.Result, tmp_path: Path
) -> None:
    draw, hit = random.Random(1), 0
    for number in range(count):
        folder = tmp_path / str(number)
        hit += killed(folder, draw.uniform(0.0, 1.0))
        same(gpubp.resume(folder, *both()), whole)
    assert hit, "some were killed before their end"


def test_the_command_line_has_slots_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--data", "iris", "--networks", "6", "--epochs", "1", "--lr", "1e-3..1e-1:log", "--engine", "eager"]
    folders = [str(tmp_path / name) for name in ("few", "all")]
    for folder, more in zip(folders, (["--slots", "3"], [])):
        assert main(["train", *common, *more, "--run-dir", folder]) == 0
    tables = [read_results(Path(folder) / "results.parquet") for folder in folders]
    assert tables[0].equals(tables[1])
    assert main(["resume", folders[0]]) == 0
    assert main(["explain", folders[0], "--network", "5"]) == 0
    capsys.readouterr()
    assert main(["resume", folders[0], "--epochs", "9"]) == 1
    assert "more networks than slots" in capsys.readouterr().err
