"""The record that a driver goes on from: what it was, or an error in one sentence, whatever the files hold."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gpubp
from gpubp.checkpoints import manifests
from gpubp.cluster.meeting import LightRun, light_runs
from gpubp.cluster.messages import Looked, clocks
from gpubp.cluster.record import WAITING, Record
from gpubp.cluster.shards import Part, dealt
from gpubp.errors import CheckpointError
from gpubp.evaluate import Evaluation, Round
from gpubp.runs import making
from gpubp.runs.design import Design
from gpubp.runs.run import Sets
from gpubp.search import SuccessiveHalving
from gpubp.system import files

from .mutations import damaged

MUTATIONS = 300


@pytest.fixture
def parts() -> Sequence[Part]:
    design = Design.of([{"lr": 0.1 * each} for each in (1, 2, 3)], widths="2,2,1", loss="mean_squared_error", epochs=4)
    return making.Source(0, torch.float32, None).planned(design)


@pytest.fixture
def runs(parts: Sequence[Part]) -> Sequence[LightRun]:
    data = gpubp.Dataset(torch.zeros(8, 2), torch.zeros(8, 1))
    return light_runs(parts, [("cpu", "")], Sets(data), False)


@pytest.fixture
def record(runs: Sequence[LightRun], tmp_path: Path) -> Record:
    """After a decision, in the folder of the test."""
    found = Record("0" * 64, 2)
    found.decide(tmp_path, 3, runs, SuccessiveHalving(2), exchanged=True)
    return found


def test_a_record_is_what_it_was(record: Record, runs: Sequence[LightRun], tmp_path: Path) -> None:
    found = Record.load(tmp_path)
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


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    deep, digits = ["[" * 100_000, '{"sha256":' * 50_000], '{"a": ' + "9" * 5000 + "}"
    for text in (*deep, digits, "[]", "null", "3", " " * (1 << 20) + "{}"):
        (tmp_path / "record.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"record.json cannot be read: "):
            Record.load(tmp_path)


@pytest.mark.parametrize("name", ["digest", "shards", "decided", "number", "file", "exchanged", "seconds", "waiting"])
def test_a_forged_record_is_refused(record: Record, tmp_path: Path, name: str) -> None:
    path = tmp_path / "record.json"
    told = json.loads(path.read_text())
    del told["sha256"]
    for forged in ({}, None, [1], 0.5 if name != "seconds" else True, -1, "3" if type(told[name]) is not str else 3):
        content = told | {name: forged}
        path.write_text(json.dumps(content | {"sha256": manifests.digest(content)}))
        with pytest.raises(CheckpointError, match=r"record.json cannot be read: "):
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


@pytest.mark.parametrize("held_out", [False, True])
def test_evaluations_that_wait_for_other_shards_are_what_they_were(
    parts: Sequence[Part], runs: Sequence[LightRun], tmp_path: Path, held_out: bool
) -> None:
    record, shards, figure = Record("0" * 64, 2), [*dealt(parts, 2)], torch.rand(2, dtype=torch.float64)
    times = {name: each[shards[0].index[0]] for name, each in clocks(runs[0].state).items()}
    found = Round(figure, Evaluation(figure + 1, figure + 2) if held_out else None, figure + 3, times["status"])
    told = {7: {0: Looked(7, [times], [found], figure[:1])}, 8: {0: Looked(8, [times], [found], figure[:0])}}
    assert record.waited(tmp_path) == {}
    record.wait(tmp_path, told)
    again = record.waited(tmp_path)
    assert repr(again) == repr(told)
    assert type(again[7][0].found[0].held_out) is (Evaluation if held_out else type(None))
    path, chance = tmp_path / WAITING, random.Random(0)
    whole = path.read_bytes()
    for _ in range(MUTATIONS):
        path.write_bytes(damaged(whole, chance)[0])
        assert record.waited(tmp_path) == {} or path.read_bytes() == whole, "it is not what was written"
    path.unlink()
    assert record.waited(tmp_path) == {}
    for content in (b"", b"\x80\x02."):
        path.write_bytes(content)
        assert replace(record, waiting=files.digest(path)).waited(tmp_path) == {}


def test_evaluations_that_wait_execute_nothing(tmp_path: Path) -> None:
    record, told = Record("0" * 64, 2), tmp_path / "told"
    record.wait(tmp_path, {7: Planted(told)})  # type: ignore[dict-item]
    assert record.waited(tmp_path) == {}
    assert not told.exists()


class Planted:
    """What makes the file `told` when it is unpickled."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __reduce__(self) -> Any:
        return self.told.touch, ()
