"""How many networks of a queue train at once is up to memory, by their bytes: of all rows, at every change."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import parquet

import gpubp
from gpubp import memory
from gpubp.cli import main
from gpubp.cluster.driver import Driver
from gpubp.commands.designs import design as designs_of
from gpubp.commands.settings import load_data
from gpubp.commands.train import fill, parser
from gpubp.errors import ConfigError, OutOfMemoryError
from gpubp.results.saved import read_results
from gpubp.runs import design as designs
from gpubp.runs.making import Maker
from gpubp.system.ambient import HOME

from .commands import Capture
from .helpers import covering, noted
from .short_runs import hears
from .test_design import data

COMMON = {"loss": "cross_entropy", "steps": 1, "engine": "eager", "optimizer": "sgd", "lr": 0.1, "batch_size": 8}
SMALL, LARGE = {"widths": "3,2,4"}, {"widths": "3,500,4"}
LATER = [*[SMALL] * 4200, *[LARGE] * 120]
FREE = 170_000_000  # of which 168 MB are the workspace's


def train(design: Any, **more: Any) -> gpubp.Result:
    return gpubp.train_many(design, data(), **{**COMMON, **more})


def same(one: gpubp.Result, other: gpubp.Result) -> None:
    assert repr(one.table.to_pydict()) == repr(other.table.to_pydict())


@pytest.fixture(name="whole", scope="module")
def with_memory_for_all() -> gpubp.Result:
    return train(LATER)


@pytest.fixture(name="made")
def networks_that_are_made_together(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each change the number of small networks, and of large ones."""

    def count(maker: Maker, groups: Any, **more: Any) -> tuple[int, int]:
        large = sum(len(each.rows) for each in groups if each.spec.widths[1] == 500)
        return sum(len(each.rows) for each in groups) - large, large

    return noted(monkeypatch, Maker, "runs", count)


@pytest.mark.parametrize(("given", "slots"), covering([list, iter], [None, 4200], meet=1))
def test_large_networks_that_come_later_train_fewer_at_a_time(
    given: Callable[[Any], Any], slots: int | None, whole: gpubp.Result, made: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("gpubp.system.free.available", lambda device: FREE)
    same(train(given(LATER), slots=slots), whole)
    assert made[0][0] > 1500, "small ones come many at a time"
    spec = gpubp.NetworkSpec((3, 500, 4), loss="cross_entropy")
    recipe = gpubp.TrainConfig("sgd", batch_size=8, steps=1).recipe(spec)
    assert 5 < max(large for _, large in made) <= memory.fit(spec, recipe, 4, HOME)


@pytest.mark.parametrize("slots", [None, pytest.param(300, marks=pytest.mark.slow)])
def test_a_run_that_ended_for_lack_of_memory_resumes_with_fewer_networks_at_once(
    slots: int | None, whole: gpubp.Result, made: list[tuple[int, int]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, free = tmp_path / "run", [FREE]
    monkeypatch.setattr("gpubp.system.free.available", lambda device: free[0])

    def scarce(progress: Any) -> None:
        free[0] = 1 << 20

    with pytest.raises(OutOfMemoryError) as caught:
        train(LATER, slots=slots, run_dir=folder, reporters=[hears(progress=scarce)])
    assert 0 < caught.value.result.waiting < len(LATER)  # type: ignore[attr-defined]
    free[0] = FREE
    same(gpubp.resume(folder, data()), whole)
    assert max(large for _, large in made) < 100


def failing(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {**SMALL, "steps": 1 + number % 5}
    raise RuntimeError("the database is gone")


def test_a_stream_that_fails_before_all_slots_are_filled_has_the_networks_before_in_its_result(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RuntimeError, match="the database is gone") as caught:
        train(failing(40), run_dir=folder)
    early = caught.value.result  # type: ignore[attr-defined]
    assert early.table["network"].to_pylist() == list(range(40))
    assert early.statuses["finished"] >= 10, "places are free for the row that failed"
    rows = [{**SMALL, "steps": 1 + number % 5} for number in range(60)]
    same(gpubp.resume(folder, data(), design=iter(rows)), train(rows))


@pytest.mark.parametrize(
    ("stream", "kind"), [(lambda: failing(0), RuntimeError), (lambda: iter([SMALL, {"lr": "fast"}]), ConfigError)]
)
def test_a_stream_without_a_first_row_or_with_a_wrong_one_there_trains_nothing(
    stream: Any, kind: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        train(stream(), run_dir=tmp_path / "run")
    assert not hasattr(caught.value, "result")
    assert not (tmp_path / "run").exists()


def test_the_command_line_trains_more_than_fit_without_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    common = ["train", "--data", "iris", "--networks", "200", "--widths", "4,16,3;4,8,3", "--lr", "1e-3..1e-1:log"]
    common += ["--folds", "2", "--epochs", "1", "--engine", "eager"]
    assert main([*common, "--run-dir", str(tmp_path / "all")]) == 0
    monkeypatch.setattr("gpubp.system.free.available", lambda device: 168_200_000)
    capsys.readouterr()
    assert main([*common, "--run-dir", str(tmp_path / "few")]) == 0
    assert " at once, while others wait, need " in capsys.readouterr().err
    tables = [read_results(tmp_path / name / "results.parquet") for name in ("all", "few")]
    assert tables[0].equals(tables[1])
    assert main(["resume", str(tmp_path / "few")]) == 0


def test_what_cannot_wait_for_slots_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("gpubp.system.free.available", lambda device: 168_200_000)
    common = ["train", "--data", "iris", "--networks", "400", "--epochs", "9", "--search", "halving", "--run-dir"]
    assert main([*common, str(tmp_path / "run"), "--widths", "4,16,3"]) == 1
    told = "search: it compares all networks at the same time, and memory has room for "
    assert f"{told}62 of them, with 168 MB free: give fewer networks" in capsys.readouterr().err
    assert main([*common, str(tmp_path / "run"), "--widths", "4,16,3;4,8,3"]) == 1
    assert told in capsys.readouterr().err
    assert main([*common, str(tmp_path / "run"), "--widths", "4,16,3", "--slots", "5"]) == 1
    assert "there are 5 slots, fewer than networks: give as many slots, or fewer networks" in capsys.readouterr().err


def test_a_shard_without_memory_says_that_more_shards_are_smaller() -> None:
    class TaskError(Exception):
        cause = OutOfMemoryError("400 networks need 168 MB")

    driver = SimpleNamespace(ray=SimpleNamespace(exceptions=SimpleNamespace(RayTaskError=TaskError)))
    told = Driver.told(driver, 3, TaskError())  # type: ignore[arg-type]
    assert isinstance(told, OutOfMemoryError)
    assert str(told) == "shard 3: 400 networks need 168 MB; more shards, which wait for their turn, are smaller"


def test_settings_that_all_networks_share_take_the_memory_of_one() -> None:
    settings = vars(parser().parse_args(["--data", "iris", "--networks", "100000", "--lr", "1e-3..1e-1"]))
    prepared = load_data(settings)
    settings |= {"loss": prepared.loss, **prepared.settings}
    fill(settings, prepared.typical)
    design = designs_of(settings, prepared)
    for columns in (design.columns, design.part(5, 50_000).columns):
        assert [name for name, each in columns.items() if each.values.strides != (0,)] == ["lr"]


def test_a_long_design_is_written_in_pieces_and_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(designs, "PIECE", 7)
    rows = [
        {"widths": "3,2,4" if n % 3 else None, "train_bias": [True, False, None][n % 3], "seed": n} for n in range(20)
    ]
    design = designs.Design.of(rows, widths="3,4", lr=0.1)
    design.save(tmp_path)
    assert parquet.ParquetFile(tmp_path / designs.DESIGN).num_row_groups == 3
    read = designs.Design.of(tmp_path / designs.DESIGN)
    assert [read.cells(name) for name in read.names] == [design.cells(name) for name in design.names]
