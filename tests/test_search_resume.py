"""A run with a search that ends anywhere goes on to the same networks, decisions and lineage; damage is refused or
said."""

import copy
import hashlib
import json
import pickle
import shutil
import signal
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import gpubp
from gpubp.errors import CheckpointError, ConfigError
from gpubp.search import Hyperband

from . import short_runs
from .helpers import covering, differing
from .searches import SEARCHES, data, run
from .short_runs import Stop, forge, hears, killed, stopped, told

LINEAGE = "lineage.jsonl"


def resumed(folder: Path, **more: Any) -> gpubp.Result:
    result = gpubp.resume(folder, data(), data(9), **more)
    assert not any("previous checkpoint" in note for note in result.notes), "the newest one is sound"
    return result


def same(one: gpubp.Result, other: gpubp.Result) -> None:
    short_runs.same(one, other)
    assert told(one) == told(other)
    assert json.dumps(one.search.to_dict()) == json.dumps(other.search.to_dict())


@pytest.fixture(name="whole", scope="module")
def whole_runs() -> Callable[[str], gpubp.Result]:
    return cache(run)


@pytest.mark.parametrize(("kind", "call"), covering(SEARCHES, [1, 3, 19], meet=1))
def test_a_stopped_run_resumes_to_the_same_decisions(
    kind: str, call: int, whole: Callable[[str], gpubp.Result], tmp_path: Path, short_calls: None
) -> None:
    folder = tmp_path / "run"
    result = stopped(lambda: run(kind, folder, reporters=[Stop(call, signal.SIGINT)]))
    assert result.statuses["running"]
    again = resumed(folder)
    same(again, whole(kind))
    described = yaml.safe_load((folder / "config.yaml").read_text())["search"]
    assert described.items() <= {**again.search.to_dict(), "method": kind}.items(), "people see what decided"
    if kind == "pbt":
        kept = [json.loads(each) for each in (folder / LINEAGE).read_text().splitlines()]
        assert kept == [*whole(kind).search.lineage]
        assert len(kept) == 2 * 3, "two populations exchange every second epoch but the last"
    same(resumed(folder), whole(kind))


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_result_is_copied_and_pickled_with_its_decisions(kind: str, whole: Callable[[str], gpubp.Result]) -> None:
    for again in (pickle.loads(pickle.dumps(whole(kind))), copy.deepcopy(whole(kind))):
        same(again, whole(kind))


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_run_that_ends_right_after_a_decision_resumes_to_the_same(
    kind: str, whole: Callable[[str], gpubp.Result], tmp_path: Path
) -> None:
    """In the first call after a round: its checkpoint is that of the decision."""
    rounds = [0]

    def crash(progress: Any) -> None:
        if rounds[-1] == 2:
            raise RuntimeError("crashed")

    ends = hears(evaluated=lambda record: rounds.append(record["round"]), progress=crash)
    with pytest.raises(RuntimeError, match="crashed"):
        run(kind, tmp_path / "run", reporters=[ends])
    same(resumed(tmp_path / "run"), whole(kind))


@pytest.mark.slow  # runs without a search are killed quickly too
@pytest.mark.parametrize("kills", [1, 200])
@pytest.mark.parametrize("kind", SEARCHES)
def test_a_run_killed_at_random_moments_resumes_to_the_same_bits(kind: str, kills: int, tmp_path: Path) -> None:
    folder, epochs = tmp_path / "run", 15 * kills
    killed(kills, folder, partial(run, kind, epochs=epochs), (data, partial(data, 9)))
    same(resumed(folder), run(kind, epochs=epochs))


@pytest.fixture(name="halves", scope="module")
def stopped_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A copy of a run of a kind that was stopped in a late round."""
    made: dict[str, Path] = {}

    def half(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "run"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("gpubp.runs.run.MOST", 3)
                stopped(lambda: run(kind, made[kind], reporters=[Stop(20, signal.SIGINT)]))
        return Path(shutil.copytree(made[kind], tmp_path_factory.mktemp("copy") / "run"))

    return half


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("halving", {"method": "halvings"}), ("halving", {"method": None}), ("halving", {"factor": 1}),
        ("halving", {"factor": "2"}), ("halving", {"more": 1}), ("halving", {"min_resources": 7}),
        ("pbt", {"space": {"lr": "1..0"}}), ("pbt", {"space": {"momentum": "0..0.5"}}), ("pbt", {"every": 500}),
        ("pbt", {"quantile": 2}), ("pbt", {"perturb": None}), ("pbt", {"seed": -1}), ("pbt", {"space": 3}),
        *(("halving", note) for note in ([], "halving", 3, {}, [["method", "halving"], ["factor"]])),
    ],
    ids=repr,
)  # fmt: skip
def test_a_note_that_no_search_gives_is_refused(kind: str, note: Any, halves: Callable[[str], Path]) -> None:
    """With something else in it, or in its place, and sealed as if it were the run's."""
    folder = halves(kind)
    forge(folder, lambda held: {"search": held["search"] | note if note and isinstance(note, dict) else note})
    with pytest.raises(CheckpointError, match="its search"):
        resumed(folder)


@pytest.mark.parametrize("damage", ["missing", "half", "unsound"])
def test_a_damaged_lineage_restarts_and_no_network_depends_on_it(
    damage: str, halves: Callable[[str], Path], whole: Callable[[str], gpubp.Result]
) -> None:
    folder = halves("pbt")
    path = folder / LINEAGE
    lines = path.read_text()
    assert len(lines.splitlines()) >= 2
    if damage == "missing":
        path.unlink()
    elif damage == "half":
        path.write_text(lines[: len(lines) // 2])
    else:
        path.write_text(lines.replace('"source"', '"sourc"'))
        content = path.read_bytes()
        sealed = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        forge(folder, lambda held: {"search": held["search"] | {"lineage": held["search"]["lineage"] | sealed}})
    result = resumed(folder)
    assert any("the lineage restarts; the networks are not affected" in note for note in result.notes)
    assert not any(map(differing, result.states, whole("pbt").states))


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_run_with_a_search_is_not_extended(kind: str, halves: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=f"{kind} depends on the length of the training, so the run cannot be ext"):
        resumed(halves(kind), epochs=20)


def test_hyperband_goes_on_in_its_brackets(tmp_path: Path) -> None:
    stopped(lambda: run("halving", tmp_path / "run", search=Hyperband(2), reporters=[Stop(9, signal.SIGINT)]))
    again = resumed(tmp_path / "run")
    same(again, run("halving", search=Hyperband(2)))
    assert len(set(again.table["bracket"].to_pylist())) > 2
