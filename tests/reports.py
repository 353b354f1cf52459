"""Runs to report, trained once: small, by the engine that compiles nothing."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gpubp.checkpoints import curves
from gpubp.cli import main
from gpubp.commands.inspect import picked
from gpubp.pages.report import Facts, report
from gpubp.studies import Study

RUNS = {
    "sweep": "--data iris --widths 4,6,3 --networks 40 --optimizer sgd --lr 1e-3..1e12:log --epochs 12",
    "numbers": "--data diabetes --widths 10,6,1 --networks 12 --lr 1e-3..1e-1:log --epochs 6 --scale-targets standard",
    "folds": "--data wine --widths 13,6,3 --networks 14 --folds 4 --lr 1e-3..1e-1:log --epochs 6",
    "entities": "--data diabetes --per sex --widths 9,6,1 --networks 3 --lr 1e-3..1e-1:log --epochs 6",
    "queue": "--data iris --widths 4,6,3;4,8,3 --networks 12 --slots 5 --lr 1e-3..1e-1:log --epochs 6",
    "halving": "--data iris --widths 4,6,3 --networks 18 --lr 1e-3..1e-1:log --epochs 9 --search halving",
    "pbt": "--data iris --widths 4,6,3 --networks 8 --lr 1e-3..1e-1:log --epochs 6 --search pbt",
    "unvalidated": "--data iris --widths 4,6,3 --networks 6 --validation 0 --epochs 4",
    "diverged": "--data iris --widths 4,6,3 --networks 4 --optimizer sgd --lr 1e300 --dtype float64 --epochs 4",
    "single": "--data iris --widths 4,6,3 --networks 1 --epochs 4",
}
Reported = Callable[[str], tuple[Path, str]]
MADE: dict[str, tuple[Path, str]] = {}  # for all files of this process


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """reported(name): the directory of a run of RUNS, and its page."""

    def run(name: str) -> tuple[Path, str]:
        if name not in MADE:
            folder = tmp_path_factory.mktemp("reports") / name
            flags = [*RUNS[name].split(), "--engine", "eager", "--tensorboard", "false", "--run-dir", str(folder)]
            assert main(["train", *flags]) == 0
            MADE[name] = folder, page_of(folder)
        return MADE[name]

    return run


def page_of(folder: Path) -> str:
    assert main(["report", str(folder)]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    """What the figures of a page show."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def many(count: int, evaluations: int, texts: int = 3) -> str:
    """The page of a run of so many networks, made up but for its curves, which are read from a file as they are."""
    source = np.random.default_rng(5)
    lr, decay, loss = 10 ** source.uniform(-4, 0, count), source.uniform(size=count), source.gamma(2, size=count)
    table = pa.table(
        {
            "network": np.arange(count), "id": np.arange(count), "steps": np.full(count, 1000),
            "status": np.where(source.random(count) < 0.05, "diverged", "finished"), "loss": loss, "accuracy": -loss,
            "validation_loss": 1.1 * loss, "validation_accuracy": -loss, "lr": lr,
            **{f"extra.{name}": decay**power for power, name in enumerate("abcdefghijkl", 1)},
            "widths": [f"64,{8 + at % texts},10" for at in range(count)],
        }
    )  # fmt: skip
    study = Study(table)
    spread = dict.fromkeys(("min", "q10", "q25", "median", "q75", "q90", "max"), 1 / 3)
    history = [
        {"round": at, "step": at, "seconds": 0.1 * at, "network_steps_per_second": 0.3, "statuses": {"running": count},
         "loss": spread, "validation_loss": spread, "metric": spread, "metric_name": "accuracy", "lr": spread}
        for at in range(1, evaluations + 1)
    ]  # fmt: skip
    from gpubp.pages.figures import shown

    records = np.zeros(evaluations, curves.KIND)
    records["step"], records["loss"] = np.arange(evaluations), source.random(evaluations)
    records["validation_loss"] = source.random(evaluations)
    every = {row: records for some in shown(study) for row in some}
    classes = 1000
    matrix = {"labels": [str(at) for at in range(30)], "counts": [[classes] * 30] * 30, "right": 1, "samples": 2}
    predictions: list[Mapping[str, Any]] = [{"name": "best network", "matrix": matrix}] * 2
    return report(Facts("many", study, picked(study, table, 5), history, every, predictions, "", {}, {}))
