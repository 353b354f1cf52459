"""What TensorBoard's reader finds in the files of a run: every point once, at rising steps, with the right numbers."""

import itertools
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.reporters import due, tensorboard
from gpubp.reporters.snapshot import Snapshot, quantiles
from gpubp.reporters.tensorboard import BEST, CURVES, SLICES, TRIALS, WORST
from gpubp.search import SuccessiveHalving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams import metadata as hparams
    from tensorboard.util.tensor_util import make_ndarray

IRIS = gpubp.load_data("iris")
COMMON: dict[str, Any] = {"widths": "4,6,3", "loss": IRIS.loss, "batch_size": 40}


class Seen(gpubp.Reporter):
    """Keeps what reporters are shown."""

    def __init__(self) -> None:
        self.snapshots: list[dict[str, Any]] = []

    def start(self, start: gpubp.reporters.Start) -> None:
        self.clock = start.clock

    def looked(self, snapshot: Snapshot) -> None:
        params = torch.cat([state.population.params for state in snapshot.states])
        kept = {"loss": snapshot.loss, "params": params, "hyper": snapshot.hyper(), "running": snapshot.running}
        kept |= {"validation_loss": snapshot.validation_loss, "norms": snapshot.gradient_norms(100)}
        self.snapshots.append({**kept, "record": snapshot.record})


def points(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Everything in the files of `folder` in the order in which TensorBoard reads it."""
    found = defaultdict(list)
    for path in sorted(folder.glob("*tfevents*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = make_ndarray(value.tensor)
                found[value.tag].append((event.step, array.item() if array.ndim == 0 else array))
    return found


def text(found: dict[str, list[tuple[int, Any]]], tag: str) -> str:
    return str(found[tag][-1][1].decode())


def rows(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in each.strip("|").split("|")] for each in markdown.splitlines()[2:]]


def once(found: dict[str, list[tuple[int, Any]]]) -> None:
    """Steps rise from point to point of each tag."""
    assert len(found["training/loss/median"]) > 2
    for tag, each in found.items():
        steps = [step for step, _ in each]
        assert all(before < after for before, after in itertools.pairwise(steps)), (tag, steps)


def sweep(count: int, **settings: Any) -> list[dict[str, Any]]:
    return [{"lr": lr, **settings} for lr in torch.logspace(-4, -1, count).tolist()]


def test_vitals_are_the_rate_the_statuses_and_the_memory_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = itertools.count(1)
    monkeypatch.setattr(tensorboard, "held", lambda: {"host": next(sizes) * 1e9, "gpu": 25e7})
    seen = Seen()
    design = [*sweep(5, epochs=4), {"lr": 1e30, "optimizer": "sgd", "epochs": 4}]
    reporters = [seen, gpubp.TensorBoardReporter(tmp_path)]
    gpubp.train_many(design, IRIS.training, IRIS.validation, engine="eager", reporters=reporters, **COMMON)
    found, records = points(tmp_path), [each["record"] for each in seen.snapshots]
    assert len(records) > 2
    for tag, wanted in (
        ("network_steps_per_second", [each["network_steps_per_second"] for each in records]),
        ("memory_host_GB", [*range(1, len(records) + 1)]),
        ("memory_gpu_GB", [0.25] * len(records)),
        *((f"networks_{name}", [each["statuses"][name] for each in records]) for name in records[0]["statuses"]),
    ):
        steps, values = zip(*found[f"vitals/{tag}"])
        assert steps == tuple(each[seen.clock] for each in records)
        np.testing.assert_allclose(values, wanted, rtol=1e-6, err_msg=tag)
    assert found["vitals/networks_diverged"][-1][1] == 1


def test_histograms_have_the_buckets_of_the_numbers(tmp_path: Path) -> None:
    seen = Seen()
    design = [{**row, "epochs": 2 + 4 * (number % 2)} for number, row in enumerate(sweep(60))]
    reporters = [seen, gpubp.TensorBoardReporter(tmp_path)]
    gpubp.train_many(design, IRIS.training, IRIS.validation, engine="eager", reporters=reporters, **COMMON)
    found = points(tmp_path)
    for snapshot in seen.snapshots:
        step = snapshot["record"][seen.clock]
        wanted = {
            "training/log10_loss": snapshot["loss"].nan_to_num(0),
            "validation/log10_loss": snapshot["validation_loss"],
        }
        wanted["variation/log10_lr"] = snapshot["hyper"]["lr"][snapshot["running"]]
        for tag, values in wanted.items():
            kept = [buckets for at, buckets in found[tag] if at == step]
            numbers = values[values > 0].double().log10().numpy()
            assert len(kept) == (due(snapshot["record"]["round"], *SLICES) and len(numbers) > 0)
            if kept:
                counts, edges = np.histogram(numbers, 30)
                np.testing.assert_allclose(kept[0][:, 0], edges[:-1], atol=1e-12)
                np.testing.assert_allclose(kept[0][:, 1], edges[1:], atol=1e-12)
                assert np.abs(kept[0][:, 2] - counts).sum() <= 2, "a number on an edge"
    assert found["variation/log10_lr"][-1][1][:, 2].sum() == 30, "of the networks that still train"


def test_one_number_of_all_networks_has_a_bucket_without_width(tmp_path: Path) -> None:
    from gpubp.reporters import events

    value = events.histogram("tag", torch.full((7,), 0.25))
    assert make_ndarray(value.tensor).tolist() == [[0.25, 0.25, 7.0]]


def test_gradient_norms_are_those_of_the_step_that_follows() -> None:
    seen = Seen()
    population = gpubp.Population.create(gpubp.NetworkSpec((4, 6, 3), loss=IRIS.loss), 5, dtype=torch.float64)
    config = gpubp.TrainConfig("sgd", lr=0.1, batch_size=40, steps=6, evaluate_every=1)
    gpubp.train(population, IRIS.training, config, engine="eager", reporters=[seen])
    for before, after in itertools.pairwise(seen.snapshots):
        moved = (after["params"] - before["params"]).norm(dim=1) / 0.1
        torch.testing.assert_close(before["norms"], moved)
    assert len(seen.snapshots[0]["norms"]) == 5


def test_a_tag_has_at_most_a_thousand_points_however_long_the_run() -> None:
    for first, octave in (CURVES, SLICES):
        places = {round(2 ** (k / octave)) + near for k in range(31 * octave + 1) for near in (-1, 0, 1)}
        shown = {
            number for number in {*range(1, 1000), *places} if 0 < number <= 1 << 31 and due(number, first, octave)
        }
        assert 200 < len(shown) <= 1000
    assert all(due(number, *CURVES) for number in range(1, 257)), "nothing is left out of a usual run"


def test_a_long_run_shows_its_last_evaluation_and_a_resumed_one_repeats_no_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = 8, 4
    monkeypatch.setattr(tensorboard, "CURVES", few)
    data = gpubp.Dataset([[0.0], [1.0]], [[0.0], [1.0]])
    curves = lambda: [gpubp.TensorBoardReporter(tmp_path / "run" / "tensorboard")]  # noqa: E731
    config = gpubp.TrainConfig(steps=21, evaluate_every=1)
    population = gpubp.Population.create(gpubp.NetworkSpec((1, 1)), 3)
    gpubp.train(population, data, config, engine="eager", reporters=curves(), run_dir=tmp_path / "run")
    gpubp.resume(tmp_path / "run", data, steps=26, reporters=[])
    gpubp.resume(tmp_path / "run", data, steps=31, reporters=curves())
    found = points(tmp_path / "run" / "tensorboard")
    once(found)
    steps = [step for step, _ in found["training/loss/median"]]
    assert steps[:8] == [*range(1, 9)]
    assert {21, 31} <= {*steps}, "the last ones"
    assert any(21 < step < 26 for step in steps), "those without curves come from the history"
    assert len(steps) == sum(due(number, *few) for number in range(1, 32)) + 2


@pytest.mark.parametrize("kind", ["queue", "mixed", "halving", "folds"])
def test_steps_rise_whatever_trains_together(kind: str, tmp_path: Path) -> None:
    folder, seen, data, more = tmp_path / "tensorboard", Seen(), (IRIS.training, IRIS.validation), dict[str, Any]()
    design = [{**row, "epochs": 3 + number % 3} for number, row in enumerate(sweep(10))]
    if kind == "queue":
        more = {"slots": 4}
    elif kind == "mixed":
        design = [{**row, "batch_size": (10, 90)[number % 2]} for number, row in enumerate(design)]
    elif kind == "halving":
        design, more = [{**row, "epochs": 9} for row in design], {"search": SuccessiveHalving(factor=3)}
    else:
        design, data = [{**row, "fold": n % 5} for n, row in enumerate(sweep(10, epochs=5))], IRIS.training.folds(5)
    common = {**COMMON, "evaluate_every": 1} if kind != "halving" else COMMON
    common = {name: value for name, value in common.items() if name not in design[0]}
    reporters = [seen, gpubp.TensorBoardReporter(folder)]
    result = gpubp.train_many(design, *data, engine="eager", reporters=reporters, **common, **more)
    found = points(folder)
    once(found)
    assert seen.clock == ("network_steps" if kind in ("queue", "mixed") else "step")
    whole = sum(result.table["steps"].to_pylist())
    assert found["training/loss/median"][-1][0] == (
        whole if kind in ("queue", "mixed") else max(result.table["steps"].to_pylist())
    )
    last = {tag: each[-1][1] for tag, each in found.items() if tag.startswith("vitals/networks_")}
    assert last == {f"vitals/networks_{name}": count for name, count in result.statuses.items()}, "also those that left"


def test_the_best_and_the_worst_are_named_with_reasons(tmp_path: Path) -> None:
    rates = [*torch.logspace(-2, 0, 12).tolist(), 1e30, 1e30]
    population = gpubp.Population.create(gpubp.NetworkSpec((4, 6, 3), loss=IRIS.loss), len(rates))
    config = gpubp.TrainConfig("sgd", lr=rates, batch_size=40, epochs=3)
    reporters = [gpubp.TensorBoardReporter(tmp_path)]
    result = gpubp.train(population, IRIS.training, config, IRIS.validation, engine="eager", reporters=reporters)
    found, order = points(tmp_path), result.ranking().tolist()
    best, worst = rows(text(found, "best")), rows(text(found, "worst"))
    assert [int(row[0]) for row in best] == order[:BEST]
    assert [int(row[0]) for row in worst] == [12, 13, *order[::-1]][:WORST]
    step = result.table["diverged_step"][12].as_py()
    assert worst[0][1:] == [f"diverged in step {step + 1}", "1e+30"]
    assert worst[2][1].startswith(r"validation loss ")
    times = result.validation_loss[order[-1]] / quantiles(result.validation_loss[order])["median"]
    assert worst[2][1].endswith(f", {times:.3g} times the median"), "the one that the outcome and curves have"
    ranks = [found[f"variation/validation/loss/rank_{k + 1}"][-1][1] for k in range(BEST)]
    np.testing.assert_allclose(ranks, result.validation_loss[order[:BEST]], rtol=1e-6)


def test_the_outcome_is_that_of_networks_that_have_not_diverged(tmp_path: Path) -> None:
    design = [{"lr": lr, "optimizer": "sgd", "loss": "mean_squared_error"} for lr in (0.01, 0.02, 0.03, 1e9, 1e9)]
    data = gpubp.Dataset(torch.linspace(-1, 1, 20)[:, None], torch.linspace(-1, 1, 20).sin())
    reporters = [gpubp.TensorBoardReporter(tmp_path)]
    result = gpubp.train_many(design, data, data, reporters=reporters, widths="1,1", epochs=9, engine="eager")
    assert result.statuses["diverged"] == 2
    found, worst = points(tmp_path), float(result.loss[:3].max())
    assert found["vitals/training_r2/median"][-1][1] == pytest.approx(float(result.metric[:3].median()), rel=1e-6)
    loss = next(cells for cells in rows(text(found, "outcome").partition("\n\n")[2]) if cells[0] == "training loss")
    assert float(loss[-1]) == pytest.approx(worst, rel=1e-4)


def test_the_best_hundred_have_their_hyper_parameters_and_figures_also_after_a_resume(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "tensorboard"
    curves = lambda: [gpubp.TensorBoardReporter(folder)]  # noqa: E731
    settings = {"reporters": curves(), "run_dir": tmp_path / "run", "engine": "eager"}
    gpubp.train_many(sweep(TRIALS + 20), IRIS.training, IRIS.validation, epochs=1, **COMMON, **settings)
    result = gpubp.resume(tmp_path / "run", IRIS.training, IRIS.validation, epochs=3, reporters=curves())
    names = {path.parent.name for path in folder.glob("hparams/*/*tfevents*")}
    assert names == {f"network_{row}" for row in result.ranking()[:TRIALS].tolist()}
    best = int(result.ranking()[0])
    (path,) = (folder / "hparams" / f"network_{best}").iterdir()
    values = [value for event in EventFileLoader(str(path)).Load() for value in event.summary.value]
    told = {value.tag: value for value in values}
    start = hparams.parse_session_start_info_plugin_data(
        told[hparams.SESSION_START_INFO_TAG].metadata.plugin_data.content
    )
    assert {name: value.number_value for name, value in start.hparams.items()} == {
        "lr": result.table["lr"][best].as_py()
    }
    shown = make_ndarray(told["winners/validation_loss"].tensor).item()
    assert shown == pytest.approx(float(result.validation_loss[best]))  # type: ignore[index]
