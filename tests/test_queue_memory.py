"""How many networks of a queue train at once is up to memory, by their bytes: of all rows, at every change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp import design as designs
from gpubp import memory
from gpubp.ambient import HOME
from gpubp.errors import ConfigError, OutOfMemoryError
from gpubp.making import Maker

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
    made, runs = [], Maker.runs

    def counted(maker: Maker, groups: Any, copy: bool = False) -> Any:
        large = sum(len(each.rows) for each in groups if each.spec.widths[1] == 500)
        made.append((sum(len(each.rows) for each in groups) - large, large))
        return runs(maker, groups, copy)

    monkeypatch.setattr(Maker, "runs", counted)
    return made


@pytest.mark.parametrize("given", [list, iter])
@pytest.mark.parametrize("slots", [None, 4200])
def test_large_networks_that_come_later_train_fewer_at_a_time(
    given: Callable[[Any], Any], slots: int | None, whole: gpubp.Result, made: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(memory, "available", lambda device: FREE)
    same(train(given(LATER), slots=slots), whole)
    assert made[0][0] > 1500, "small ones come many at a time"
    spec = gpubp.NetworkSpec((3, 500, 4), loss="cross_entropy")
    recipe = gpubp.TrainConfig("sgd", batch_size=8, steps=1).recipe(spec)
    assert 5 < max(large for _, large in made) <= memory.fit(spec, recipe, 4, HOME)


def test_of_a_design_no_network_is_made_for_its_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made, initialise = [], designs.initialise

    def counted(spec: Any, rule: Any, seed: int, ids: Any, *more: Any) -> Any:
        made.append(len(ids))
        return initialise(spec, rule, seed, ids, *more)

    monkeypatch.setattr(designs, "initialise", counted)
    train([SMALL] * 100)
    assert sum(made) == 100


@pytest.mark.parametrize("slots", [None, 300])
def test_a_run_that_ended_for_lack_of_memory_resumes_with_fewer_networks_at_once(
    slots: int | None, whole: gpubp.Result, made: list[tuple[int, int]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, free = tmp_path / "run", [FREE]
    monkeypatch.setattr(memory, "available", lambda device: free[0])

    class Scarce(gpubp.Reporter):
        def progress(self, progress: Any) -> None:
            free[0] = 1 << 20

    with pytest.raises(OutOfMemoryError) as caught:
        train(LATER, slots=slots, run_dir=folder, reporters=[Scarce()])
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
