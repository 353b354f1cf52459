"""A queue, whatever it is given: every network ends in the results once, as it does in a run of its row alone. Lengths,
samples, patience, what diverges and when, slots, streams, and where the run is stopped and goes on are drawn."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpubp

from .helpers import alike
from .short_runs import Stop
from .test_design import FOLDS, data

SETS = data(rows=FOLDS), data(9)
RATES = [0.01, 0.1, 1e4, 1e8, 1e16, 1e38]  # the larger, the sooner such a network diverges


def common(engine: str) -> dict[str, Any]:
    return {"loss": "cross_entropy", "evaluate_every": 2, "seed": 3, "optimizer": "sgd", "engine": engine}


class Queue(NamedTuple):
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
def queues(draw: st.DrawFn, engine: str) -> Queue:
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
    return Queue(rows, draw(st.integers(1, 8)), draw(st.booleans()), calls, draw(st.booleans()))


def trained(queue: Queue, engine: str, folder: Path) -> gpubp.Result:
    """The result, of a resumed run if it is stopped."""
    rows, more = [{"seed": 7 * row, **each} for row, each in enumerate(queue.rows)], dict[str, Any]()
    if queue.calls is not None:
        more = {"run_dir": folder, "reporters": [Stop(queue.calls, signal.SIGINT)], "checkpoint_minutes": 0.0}
    with suppress(KeyboardInterrupt):
        return gpubp.train_many(queue.given(rows), *queue.sets, slots=queue.slots, **common(engine), **more)
    return gpubp.resume(folder, *queue.sets, design=queue.given(rows) if queue.stream else None)


@pytest.mark.parametrize(
    ("engine", "examples"),
    [("eager", 2), pytest.param("eager", 100, marks=pytest.mark.slow),
     pytest.param("cpu", 2, marks=[pytest.mark.cpu("runs the engine cpu"), pytest.mark.slow])],
)  # fmt: skip
def test_every_network_of_a_queue_ends_once_as_it_does_alone(
    engine: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpubp.runs.run.MOST", 3)

    @settings(max_examples=examples, deadline=None)
    @given(queues(engine), st.integers(0, 11), st.integers(1, 3))
    def check(queue: Queue, one: int, other: int) -> None:
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
