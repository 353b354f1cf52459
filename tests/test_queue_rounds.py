"""A queue that nobody watches: rounds end when others can come, and networks are made ahead; memory may end. A queue,
whatever it is given: every network ends in the results once, as it does in a run of its row alone. Lengths, samples,
patience, what diverges and when, slots, streams, and where the run is stopped and goes on are drawn."""

import itertools
import signal
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import gpubp
from gpubp.errors import OutOfMemoryError
from gpubp.reporters import due
from gpubp.runs.making import Maker
from gpubp.runs.queue import Queue
from gpubp.runs.run import Run

from .helpers import alike, noted
from .short_runs import Stop, hears, stopped
from .test_design import FOLDS, data
from .test_queue import same

COMMON = {"loss": "cross_entropy", "batch_size": 8, "engine": "eager", "optimizer": "sgd", "lr": 0.1}
SPREAD = [{"widths": "3,4" if n % 3 else "3,2,4", "steps": 1 + 7 * n % 10} for n in range(24)]


def train(design: Any, **more: Any) -> gpubp.Result:
    return gpubp.train_many(design, data(), **{**COMMON, **more})


@pytest.fixture(name="whole", scope="module")
def all_at_once() -> gpubp.Result:
    return train(SPREAD)


@pytest.mark.parametrize(("slots", "ahead"), [(3, 2), (16, 1 << 12)])
def test_how_many_are_made_ahead_changes_no_network(
    slots: int, ahead: int, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpubp.runs.queue.AHEAD", (ahead, 1 << 24))
    same(train(SPREAD, slots=slots), whole)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many networks are made at once, each time, and their bytes."""

    def size(maker: Maker, groups: Any, **more: Any) -> tuple[int, int]:
        return sum(len(each.rows) for each in groups), sum(each.population.params.nbytes for each in groups)

    return noted(monkeypatch, Maker, "runs", size)


def test_few_are_made_ahead_where_they_are_larger_than_those_before(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpubp.runs.queue.AHEAD", (1 << 12, 1 << 16))
    train([*[{"widths": "3,4"}] * 8, *[{"widths": "3,200,4"}] * 40], steps=1, slots=4)
    most = max(size for _, size in made)
    assert most <= 1 << 16 < 40 * 4 * gpubp.NetworkSpec((3, 200, 4), loss="cross_entropy").size


def test_a_round_takes_as_long_as_half_of_the_networks_need(whole: gpubp.Result) -> None:
    steps = whole.network_steps / 16
    rounds = train(SPREAD, slots=16).history[-1]["round"]
    assert rounds <= 4, f"{steps:.0f} steps of each slot, in rounds of about 5"


def test_the_loss_of_a_round_is_the_mean_over_all_its_parts() -> None:
    """And short networks that come first leave the others their long rounds."""
    long, short = {"widths": "3,4", "steps": 30, "seed": 0}, {"widths": "3,4", "steps": 2}
    alone = train([long]).history[-1]
    last, later = (train(rows, slots=2).history[-1] for rows in ([long, *[short] * 4], [*[short] * 4, long]))
    assert last["round"] > alone["round"]
    assert later["round"] == 3
    assert last["loss"]["median"] == later["loss"]["median"] == alone["loss"]["median"]


def test_a_part_of_a_round_resumes_to_the_same_networks(whole: gpubp.Result, tmp_path: Path, short_calls: None) -> None:
    folder, uncut = tmp_path / "run", train(SPREAD, slots=8)
    stopped(lambda: train(SPREAD, slots=8, run_dir=folder, reporters=[Stop(5, signal.SIGINT)]))
    resumed = gpubp.resume(folder, data())
    same(resumed, whole)
    assert resumed.history[-1]["round"] == uncut.history[-1]["round"], "rounds stay as short"
    assert resumed.history[-1]["loss"] == uncut.history[-1]["loss"]


def test_a_stream_that_has_ended_stays_so_after_a_resume_and_its_last_round_is_recorded(
    tmp_path: Path, short_calls: None
) -> None:
    rows, folder = [{"widths": "3,4", "steps": steps} for steps in (30, 1, 1, 1, 30)], tmp_path / "run"
    early = stopped(lambda: train(iter(rows), slots=4, run_dir=folder, reporters=[Stop(6, signal.SIGINT)]))
    assert early.populations.count == 5
    whole, resumed = train(iter(rows), slots=4), gpubp.resume(folder, data(), design=iter(rows))
    same(resumed, whole)
    assert [each["loss"] for each in resumed.history] == [each["loss"] for each in whole.history] != []


@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_that_ends_when_all_slots_are_free_has_a_record_of_its_end(
    cut: bool, tmp_path: Path, short_calls: None
) -> None:
    rows, folder = [{"widths": "3,4", "steps": 9}] * 8, tmp_path / "run"
    given: dict[str, Any] = {"slots": 4, "run_dir": folder}
    if cut:
        early = stopped(lambda: train(iter(rows), **given, reporters=[Stop(5, signal.SIGINT)]))
        assert early.waiting is None, "nobody knows how many rows come"
        result = gpubp.resume(folder, data(), design=iter(rows))
    else:
        result = train(iter(rows), **given)
    expected = train(rows, slots=4).history[-1]
    assert [each["loss"] for each in result.history] == [expected["loss"]]
    assert result.history[-1]["statuses"] == expected["statuses"]


def test_the_history_of_a_long_queue_has_few_of_its_rounds_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_calls: None
) -> None:
    monkeypatch.setattr("gpubp.runs.loop.RECORDS", (4, 2))
    rounds, folder = list[int](), tmp_path / "run"
    watch = hears(evaluated=lambda record: rounds.append(record["round"]))
    given = {"slots": 4, "evaluate_every": 1, "run_dir": folder, "checkpoint_minutes": 0.0}
    stopped(lambda: train(SPREAD, **given, reporters=[watch, Stop(12, signal.SIGINT)]))
    result = gpubp.resume(folder, data(), reporters=[watch])
    last = rounds[-1]
    assert rounds == [*range(1, last + 1)]
    kept = [number for number in rounds if due(number, 4, 2) or number == last]
    assert [each["round"] for each in result.history] == kept
    assert len(kept) < last / 2
    assert len((folder / "history.jsonl").read_text().splitlines()) == len(kept)


def test_the_last_round_is_in_the_history_of_a_queue_that_is_stopped_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpubp.runs.loop.RECORDS", (4, 2))
    given = {"slots": 4, "evaluate_every": 4}
    whole = train(SPREAD, **given, reporters=[hears(evaluated=lambda record: None)])
    last = whole.history[-1]["round"]
    assert not due(last, 4, 2)

    def stop(record: Any) -> None:
        if record["round"] == last:
            signal.raise_signal(signal.SIGINT)

    stopped(lambda: train(SPREAD, **given, run_dir=tmp_path / "run", reporters=[hears(evaluated=stop)]))
    resumed = gpubp.resume(tmp_path / "run", data())
    assert [each["round"] for each in resumed.history] == [each["round"] for each in whole.history]


class Short(TorchDispatchMode):
    """Memory that ends at the `last`th operation that takes as much as rows of networks do."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.left = last

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        fresh = any(each.alias_info is None for each in func._schema.returns)
        if fresh and isinstance(found, torch.Tensor) and found.numel() >= 16:
            self.left -= 1
            if not self.left:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return found


@pytest.mark.parametrize("each", [193, pytest.param(1, marks=pytest.mark.slow("trains and resumes hundreds of times"))])
def test_memory_may_end_while_networks_change_and_none_is_lost(
    each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, fill, short = SPREAD[:16], Queue.fill, Short(0)
    whole = train(some)

    def filled(queue: Queue, runs: list[Run], new: list[Run], crew: Any) -> None:
        with short if queue.rows.taken > 8 else nullcontext():
            fill(queue, runs, new, crew)

    monkeypatch.setattr(Queue, "fill", filled)
    for last in itertools.count(1, each):
        short, folder, error = Short(last), tmp_path / str(last), None
        try:
            train(some, slots=4, run_dir=folder)
        except OutOfMemoryError as raised:
            error = raised
        if error is None:
            assert last > 100, "a change takes many operations"
            return
        assert any("continue with gpubp.resume" in note for note in error.__notes__)
        rows = error.result.table["network"].to_pylist()  # type: ignore[attr-defined]
        assert rows == list(range(len(rows))), "no row is lost, none is there twice"
        assert len(rows) > 8
        same(gpubp.resume(folder, data()), whole)


SETS = data(rows=FOLDS), data(9)
RATES = [0.01, 0.1, 1e4, 1e8, 1e16, 1e38]  # the larger, the sooner such a network diverges


def common(engine: str) -> dict[str, Any]:
    return {"loss": "cross_entropy", "evaluate_every": 2, "seed": 3, "optimizer": "sgd", "engine": engine}


class Drawn(NamedTuple):
    """rows: the design; slots: networks that train at once; stream: whether rows come one by one; calls: of the engine
    before Ctrl-C, or None; validated: whether there are validation data."""

    rows: list[dict[str, Any]]
    slots: int
    stream: bool
    calls: int | None
    validated: bool

    def given(self, rows: list[dict[str, Any]]) -> Any:
        return iter(rows) if self.stream else rows

    @property
    def sets(self) -> tuple[gpubp.Dataset, ...]:
        return SETS if self.validated else SETS[:1]


@st.composite
def queues(draw: st.DrawFn, engine: str) -> Drawn:
    kinds = {"widths": st.just("3,2,4"), "batch_size": st.just(8)}  # one kernel, for engine cpu
    if engine == "eager":
        kinds |= {"widths": st.sampled_from(["3,2,4", "3,4", "3,2,2,4"]), "batch_size": st.sampled_from([8, 25])}
        kinds |= {"optimizer": st.sampled_from(["sgd", "adam"]), "schedule": st.sampled_from(["constant", "cosine"])}
    length = st.one_of(
        st.fixed_dictionaries({"epochs": st.integers(1, 6)}), st.fixed_dictionaries({"steps": st.integers(1, 20)})
    )
    ends = {"patience": st.integers(1, 3), "target_loss": st.sampled_from([1.0, 1.3]), "restore_best": st.booleans()}
    optional = {**ends, **({"dropout": st.sampled_from([0.1, 0.3])} if engine == "eager" else {})}
    row = st.fixed_dictionaries({**kinds, "lr": st.sampled_from(RATES), "fold": st.integers(0, 2)}, optional=optional)
    rows = draw(st.lists(st.builds(lambda one, other: {**one, **other}, row, length), min_size=4, max_size=12))
    calls = draw(st.one_of(st.none(), st.integers(1, 30)))
    return Drawn(rows, draw(st.integers(1, 8)), draw(st.booleans()), calls, draw(st.booleans()))


def trained(queue: Drawn, engine: str, folder: Path) -> gpubp.Result:
    """The result, of a resumed run if it is stopped."""
    rows, more = [{"seed": 7 * row, **each} for row, each in enumerate(queue.rows)], dict[str, Any]()
    if queue.calls is not None:
        more = {"run_dir": folder, "reporters": [Stop(queue.calls, signal.SIGINT)], "checkpoint_minutes": 0.0}
    with suppress(KeyboardInterrupt):
        return gpubp.train_many(queue.given(rows), *queue.sets, slots=queue.slots, **common(engine), **more)
    return gpubp.resume(folder, *queue.sets, design=queue.given(rows) if queue.stream else None)


@pytest.mark.parametrize(
    ("engine", "examples"),
    [pytest.param("eager", 100, marks=pytest.mark.slow),
     pytest.param("cpu", 2, marks=[pytest.mark.cpu("runs the engine cpu"), pytest.mark.slow])],
)  # fmt: skip
def test_every_network_of_a_queue_ends_once_as_it_does_alone(
    engine: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpubp.runs.run.MOST", 3)

    @settings(max_examples=examples, deadline=None)
    @given(queues(engine), st.integers(0, 11), st.integers(1, 3))
    def check(queue: Drawn, one: int, other: int) -> None:
        with TemporaryDirectory() as folder:
            result = trained(queue, engine, Path(folder, "run"))
            table = result.table
            assert table["network"].to_pylist() == [*range(len(queue.rows))]
            assert result.statuses["running"] == 0
            for row in (one % len(queue.rows), (one + other) % len(queue.rows)):
                own = [{"seed": 7 * row, **queue.rows[row]}]
                alone = gpubp.train_many(own, *queue.sets, **common(engine))
                names = [name for name in alone.table.column_names if name != "network"]
                mine, expected = (each.select(names).to_pylist()[0] for each in (table.slice(row, 1), alone.table))
                assert repr(mine) == repr(expected)
                assert alike(result.network(row), alone.network(0))

    check()
