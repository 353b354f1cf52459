"""The record that a driver goes on from: what it was, or an error in one sentence, whatever the files hold."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gpubp
from gpubp import files, making, manifests
from gpubp.cluster.meeting import LightRun, light_runs
from gpubp.cluster.record import LARGEST, Record
from gpubp.design import Design
from gpubp.errors import CheckpointError
from gpubp.run import Sets
from gpubp.search import SuccessiveHalving

from .mutations import damaged

MUTATIONS = 300


@pytest.fixture
def runs() -> Sequence[LightRun]:
    data = gpubp.Dataset(torch.zeros(8, 2), torch.zeros(8, 1))
    design = Design.of([{"lr": 0.1 * each} for each in (1, 2, 3)], widths="2,2,1", loss="mean_squared_error", epochs=4)
    parts = making.Source(0, torch.float32, None).planned(design)
    return light_runs(parts, [("cpu", "")], Sets(data), False)


@pytest.fixture
def record(runs: Sequence[LightRun], tmp_path: Path) -> Record:
    """After a decision, in the folder of the test."""
    found = Record("0" * 64, 2)
    found.decide(tmp_path, 3, runs, SuccessiveHalving(2), exchanged=True)
    return found


def test_a_record_is_what_it_was(record: Record, runs: Sequence[LightRun], tmp_path: Path) -> None:
    found = Record.load(tmp_path)
    assert found is not None
    assert (found.decided, found.number, found.search) == (1, 3, SuccessiveHalving(2).to_dict())
    runs[0].state.step += 1
    found.restore(tmp_path, runs)
    assert (runs[0].state.step.tolist(), runs[0].number) == ([0, 0, 0], 3)


@pytest.mark.parametrize("name", ["record.json", "decision-00000001.safetensors"])
def test_a_damaged_record_is_refused(record: Record, runs: Sequence[LightRun], tmp_path: Path, name: str) -> None:
    path, chance = tmp_path / name, random.Random(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(MUTATIONS):
        path.write_bytes(damaged(whole, chance)[0])
        try:
            found = Record.load(tmp_path)
            assert found == record, "in another coding, or without the last line break"
            found.restore(tmp_path, runs)
        except CheckpointError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
            refused += 1
    assert refused > 0.8 * MUTATIONS


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"sha256":' * 50_000, '{"a": ' + "9" * 5000 + "}", "[]", "null", "3", " " * (LARGEST + 1) + "{}"],
    ids=["lists", "mappings", "digits", "list", "null", "number", "long"],
)
def test_a_file_that_is_no_record_is_refused(record: Record, tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"record.json cannot be read: "):
        Record.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"number": "x"}, {"number": -1}, {"number": 1.5}, {"number": True}, {"decided": None}, {"shards": [2]},
        {"exchanged": 1}, {"seconds": "0"}, {"seconds": float("nan")}, {"seconds": float("inf")}, {"digest": 3},
        {"file": None}, {"more": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_a_forged_record_is_refused(record: Record, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "record.json"
    told = json.loads(path.read_text()) | change
    del told["sha256"]
    path.write_text(json.dumps(told | {"sha256": manifests.digest(told)}))
    with pytest.raises(CheckpointError, match=r"record.json cannot be read: it is not what was written"):
        Record.load(tmp_path)


@pytest.mark.parametrize("name", ["step", "limit", "position", "status", "source", "hyper.lr", "loss"])
def test_a_forged_decision_is_refused(record: Record, runs: Sequence[LightRun], tmp_path: Path, name: str) -> None:
    path = record.decision(tmp_path)
    whole = load_file(path)
    each = whole[f"0.{name}"]
    least, most = each * 0 - 2, each * 0 + 100 if name != "hyper.lr" else each / 0
    out = {"loss": [], "position": [least]}.get(name, [least, most])
    for forged in (each[:2].clone(), each.to(torch.float16), each[:, None].clone(), None, *out):
        content = {key: value for key, value in whole.items() if key != f"0.{name}"}
        save_file(content if forged is None else content | {f"0.{name}": forged}, path)
        record.file = files.digest(path)
        with pytest.raises(CheckpointError, match=r"decision-00000001.safetensors cannot be read: "):
            record.restore(tmp_path, runs)
