"""gpubp.replay(): a network trained again alone has every bit that it has in the run, whatever run that was; a
difference is told, and what cannot be replayed is refused."""

import io
import itertools
import json
import math
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

import gpubp
from gpubp.errors import CheckpointError, ConfigError, ShapeError

from .helpers import compiled, noted, same_bits  # noqa: F401
from .replays import COMMON, KINDS, RATES, Ran, designed, exchanged_in_folds, resealed, same, streamed
from .short_runs import COUNT, SPEC, Stop, calls_of_three_steps, config, forge, held_out, networks, training

SLOW = pytest.mark.slow


# Of which there is more in slots, bootstraps and halving, and in tests of their own.
LIKE_OTHERS = ("design", "folds", "hyperband", "pbt", "pbt in folds", "stream")


@pytest.mark.parametrize("some", [2, pytest.param(None, marks=SLOW)], ids=["two", "all"])
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[SLOW] * (kind in LIKE_OTHERS)) for kind in KINDS])
def test_a_network_of_a_run_is_the_same_alone(kind: str, some: int | None, tmp_path: Path) -> None:
    for found in same(tmp_path / kind, KINDS[kind](tmp_path / kind), some):
        assert found.proven
        assert found.explanation.to_dict()["step"]["number"] == found.step - 1


def test_a_network_of_a_run_on_a_gpu_is_the_same_on_the_cpu(tmp_path: Path) -> None:
    """The engine of the checkpoint is the GPU's, the steps the compiled kernel's."""
    gpubp.train(networks(), training(), config(epochs=4), held_out(), run_dir=tmp_path / "run", engine="cpu")
    resealed(tmp_path / "run", engine="cuda")
    assert len(same(tmp_path / "run", Ran(training(), held_out(), lambda: {"population": networks()}), 3)) == 3


@pytest.fixture(name="plain", scope="module")
def a_plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven steps of networks that can go on to fifteen; rounds have four."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with calls_of_three_steps(), suppress(KeyboardInterrupt):
        gpubp.train(networks(), training(), PLAIN, run_dir=folder, engine="eager", reporters=[Stop(3, signal.SIGINT)])
    return folder


PLAIN = gpubp.TrainConfig(lr=RATES, steps=15, batch_size=8, evaluate_every=4, schedule="plateau", plateau_patience=0)
TOLD: dict[str, Any] = {"data": training(), "population": networks()}


def until(steps: int, row: int) -> torch.Tensor:
    """A network's row after so many steps, trained among the others."""
    chosen = gpubp.TrainConfig(**{**PLAIN.to_dict(), "steps": steps})
    return gpubp.train(networks(), training(), chosen, engine="eager").population.params[row]


@pytest.mark.parametrize("step", [1, 5, 7, 8, 9, pytest.param(15, marks=SLOW)])
def test_the_step_that_is_explained_begins_where_the_run_was_or_would_be(step: int, plain: Path) -> None:
    """Before, at and after the end of a round and the checkpoint; beyond it the training goes on as the run would."""
    found = gpubp.replay(plain, 2, step, **TOLD)
    assert (found.steps, found.status, found.difference) == (7, "running", None)
    assert found.proven == (step <= 7)
    assert ("continuation" in found.text()) == (step > 7)
    expected = networks().params[2] if step == 1 else until(step - 1, 2)
    assert same_bits(found.before.population.params[0], expected)
    told = found.explanation.to_dict()
    assert (told["network"]["row"], told["step"]["number"]) == (2, step - 1)


def test_the_step_of_a_network_that_diverged_is_the_one_that_did_not_count(plain: Path) -> None:
    found = gpubp.replay(plain, 3, **TOLD)
    assert (found.status, found.step, found.proven) == ("diverged", found.steps + 1, True)
    assert not found.explanation.to_dict()["step"]["counts"]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ((5,), ShapeError, "network 5: a row from 0 to 4 of the results expected"),
        ((-1,), ShapeError, "network -1: a row from 0 to 4 of the results expected"),
        (("two",), ConfigError, "network 'two', step None: whole numbers expected"),
        ((2, 0), ConfigError, "step 0: network 2 is running after 7 steps; 1 to 15 expected"),
        ((2, 16), ConfigError, "step 16: network 2 is running after 7 steps; 1 to 15 expected"),
        ((3, 15), ConfigError, r"step 15: network 3 is diverged after (1 step|[2-9] steps); 1 to \d expected"),
    ],
)
def test_a_network_and_a_step_that_the_run_has_not_are_refused(
    asked: tuple[Any, ...], error: type[Exception], message: str, plain: Path
) -> None:
    with pytest.raises(error, match=message):
        gpubp.replay(plain, *asked, **TOLD)


def test_a_continuation_that_stops_before_the_step_is_refused(tmp_path: Path) -> None:
    chosen = gpubp.TrainConfig(lr=1e-9, epochs=9, batch_size=20, patience=2, min_delta=1.0)
    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("gpubp.runs.run.MOST", 1)
        more = {"engine": "eager", "reporters": [Stop(1, signal.SIGINT)]}
        gpubp.train(networks(), training(), chosen, run_dir=tmp_path / "run", **more)
    assert gpubp.replay(tmp_path / "run", 0, 6, **TOLD).same
    with pytest.raises(ConfigError, match="step 8: network 0 goes on from the checkpoint only to step 6"):
        gpubp.replay(tmp_path / "run", 0, 8, **TOLD)


@pytest.mark.parametrize("name", ["params", "slots.mean", "hyper.lr", "memory.best", "loss"])
def test_a_bit_of_the_checkpoint_that_somebody_changed_is_told(name: str, plain: Path, tmp_path: Path) -> None:
    """With digests that are right again; the networks beside it are as they were."""
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    path = folder / "checkpoint" / json.loads((folder / "checkpoint/manifest.json").read_text())["tensors"]
    content = load_file(path)
    content[f"0.{name}"][2:3] *= 1.5
    save_file(content, path)
    resealed(folder)
    found = gpubp.replay(folder, 2, **TOLD)
    assert not found.same
    assert not found.proven
    part = {"params": "row", "slots.mean": "optimizer's memory", "hyper.lr": "row",
            "memory.best": "evaluations' memory"}.get(name, "end")  # fmt: skip
    assert part in str(found.difference)
    assert "in the run" in found.text()
    assert gpubp.replay(folder, 1, **TOLD).same


def test_a_damaged_checkpoint_and_other_data_are_refused(plain: Path, tmp_path: Path) -> None:
    for told in ({"data": training(2)}, {"validation": held_out()}):
        with pytest.raises(
            CheckpointError, match=r"the (validation )?data differ from those that the run started with"
        ):
            gpubp.replay(plain, 0, **{**TOLD, **told})
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    path = folder / "checkpoint" / json.loads((folder / "checkpoint/manifest.json").read_text())["tensors"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged.* compared with the newest: resume the run first"):
        gpubp.replay(folder, 0, **TOLD)


def test_results_that_are_another_networks_are_told(tmp_path: Path) -> None:
    for name, rate in (("run", 0.01), ("other", 0.02)):
        gpubp.train_many([{"lr": rate}], training(), run_dir=tmp_path / name, **COMMON, epochs=2)
    assert gpubp.replay(tmp_path / "run", 0, data=training()).same
    good = (tmp_path / "run" / "results.parquet").read_bytes()
    shutil.copy(tmp_path / "other" / "results.parquet", tmp_path / "run")
    assert "different are its results;" in str(gpubp.replay(tmp_path / "run", 0, data=training()).difference)
    (tmp_path / "run" / "results.parquet").write_bytes(good)
    for column, value in (("steps", 1), ("status", "diverged"), ("lr", 123.0), ("loss", 0.0)):
        changed = parquet.read_table(io.BytesIO(good))
        at = changed.column_names.index(column)
        changed = changed.set_column(at, column, pa.array([value], changed.schema.field(at).type))
        parquet.write_table(changed, tmp_path / "run" / "results.parquet")
        found = gpubp.replay(tmp_path / "run", 0, data=training())
        assert "different are its results;" in str(found.difference), column
    (tmp_path / "run" / "results.parquet").unlink()
    assert gpubp.replay(tmp_path / "run", 0, data=training()).notes == [
        "results.parquet is missing: the figures are not compared"
    ]


def test_results_that_lack_columns_or_say_otherwise_what_networks_differ_in_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But runs of older versions have fewer, and of columns that no training makes it is said that nobody compared."""
    rows = [{"lr": 0.01, "hidden": "tanh", "widths": "3,4"}, {"lr": 0.02, "hidden": "relu", "weight_decay": 0.1}]
    result = gpubp.train_many(rows, training(), run_dir=tmp_path / "run", **COMMON, epochs=2)
    path = tmp_path / "run" / "results.parquet"
    whole = result.table.replace_schema_metadata(None)  # without its digest

    def replayed(table: pa.Table) -> gpubp.Replay:
        parquet.write_table(table, path)
        return gpubp.replay(tmp_path / "run", 0, data=training())

    assert {"widths", "hidden", "weight_decay"} <= {*whole.column_names}
    assert (replayed(whole).same, replayed(whole).notes) == (True, [])
    for name in ("accuracy", "lr"):
        renamed = whole.rename_columns({name: f"{name}_"})
        found = replayed(renamed)
        assert "different are its results;" in str(found.difference), name
        assert found.notes == [f"results.parquet has {name}_, which the network alone does not tell: not compared"]
        with monkeypatch.context() as patch:
            patch.setattr("gpubp.resumed.replay.UNSHARDED", 7)
            older = replayed(whole.drop_columns([name]))
            assert older.same
            assert older.notes == [f"results.parquet, of an older version, lacks {name}: not compared"]
    for name, value in (("widths", "3,9,4"), ("hidden", "relu"), ("weight_decay", 0.5)):
        at = whole.column_names.index(name)
        forged = whole.set_column(at, name, pa.array([value, whole[name][1].as_py()], whole.schema.field(at).type))
        assert "different are its results;" in str(replayed(forged).difference), name


def test_results_of_older_versions_have_bare_names_of_hyper_parameters_of_custom_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = gpubp.Optimizer(lambda grad, pull, loss: (grad * pull * loss,), (), {"pull": 1.0, "loss": 1.0}, lr=0.1)
    monkeypatch.setitem(gpubp.OPTIMIZERS, "pulled", rule)
    rows = [{"optimizer": "pulled", "extra.pull": 0.5, "extra.loss": 0.3}]
    result = gpubp.train_many(rows, training(), run_dir=tmp_path / "run", **COMMON, epochs=2)
    older = result.table.rename_columns({"extra.pull": "pull"}).replace_schema_metadata(None)
    parquet.write_table(older, tmp_path / "run" / "results.parquet")
    found = gpubp.replay(tmp_path / "run", 0, data=training())
    assert (found.same, found.notes) == (True, [])


def test_a_note_of_a_search_that_is_none_is_refused_and_names_of_columns_are_printable(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = gpubp.train_many([{"lr": 0.01}], training(), run_dir=folder, **COMMON, epochs=2)
    table = result.table.append_column("a\x1b[2J\nb", pa.array([1])).replace_schema_metadata(None)
    parquet.write_table(table, folder / "results.parquet")
    assert r"results.parquet has a\x1b[2J b, which" in gpubp.replay(folder, 0, data=training()).text()
    (folder / "checkpoint" / "manifest.previous.json").unlink()
    for wrong in ("x", [{}]):
        forge(folder, lambda _, note=wrong: {"search": note})
        with pytest.raises(CheckpointError, match=r"its search, .*, is none that a run has"):
            gpubp.replay(folder, 0, data=training())
    forge(folder, lambda _: {"search": {"method": []}})
    assert gpubp.replay(folder, 0, data=training()).same


def test_how_a_network_began_is_drawn_as_it_is_told(tmp_path: Path) -> None:
    scale = torch.linspace(0.5, 2, COUNT)
    made = gpubp.Population.create(SPEC, COUNT, 5, "kaiming_normal", init_scale=scale)
    gpubp.train(made, training(), gpubp.TrainConfig(steps=2), run_dir=tmp_path / "run", engine="eager")

    def replay(**told: Any) -> gpubp.Replay:
        return gpubp.replay(tmp_path / "run", 3, data=training(), **told)

    assert replay(init="kaiming_normal", init_scale=scale).same
    assert replay(init="kaiming_normal", init_scale=float(scale[3])).same
    assert replay(population=made).same
    assert replay(population=made.take([3])).same
    assert "initial weights that init 'glorot_uniform' does not draw" in str(replay().difference)
    assert replay(population=made.take([2])).difference is not None
    for other in (made.take([0, 1]), made.to(dtype=torch.float64), networks().take(slice(3))):
        with pytest.raises(ConfigError, match=r"population: .* the run's network 3, of .*, is not among them"):
            replay(population=other)


def test_a_stream_of_rows_is_asked_for(tmp_path: Path) -> None:
    ran = streamed(tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=r"was given a stream of rows: replay\(\.\.\., design=\) with the same rows"
    ):
        gpubp.replay(tmp_path / "run", 4, data=ran.data, validation=ran.validation)
    assert len(same(tmp_path / "run", ran, 1)) == 1


@pytest.fixture(name="exchanged", scope="module")
def a_run_whose_networks_became_copies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    folder = tmp_path_factory.mktemp("exchanged") / "run"
    return folder, exchanged_in_folds(folder)


def test_networks_that_had_not_begun_when_the_run_was_stopped_are_the_same(tmp_path: Path) -> None:
    """Such a run has no figures of them, as kernels may not be compiled."""
    folder = tmp_path / "run"
    with suppress(KeyboardInterrupt):
        designed(folder, reporters=[Stop(1, signal.SIGINT)])
    losses = gpubp.load(folder).results["loss"].to_pylist()
    said = ["had not begun" in " ".join(each.notes) for each in same(folder, Ran(training(), held_out()))]
    assert said == [math.isnan(loss) for loss in losses]
    assert any(said)


def test_a_copy_takes_the_steps_of_its_ancestors(exchanged: tuple[Path, Ran], tmp_path: Path) -> None:
    """And a lineage that somebody changed is refused."""
    folder, ran = exchanged
    path = folder / "lineage.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    lines = {row: list[int]() for row in range(10)}  # of each network the ancestors, the last one first
    for record, (row, line) in itertools.product(reversed(records), lines.items()):
        if (now := [row, *line][-1]) in record["network"]:
            line.append(record["source"][record["network"].index(now)])
    row, line = next(each for each in lines.items() if len(each[1]) > 1 and each[1][-1] != each[0])
    found = gpubp.replay(folder, row, 1, data=ran.data, validation=ran.validation)
    assert found.same
    assert len(found.notes) == len(line)
    assert (found.shown, found.explanation.to_dict()["network"]["row"]) == (line[-1], line[-1])
    assert f"Step 1 is network {line[-1]}'s, of which this one became a copy, and is proven" in found.text()
    assert gpubp.replay(folder, row, data=ran.data, validation=ran.validation).shown == row
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / path.name).write_text(path.read_text().replace('"round": 1', '"round": 2'))
    with pytest.raises(CheckpointError, match=r"lineage\.jsonl is damaged"):
        gpubp.replay(tmp_path / "run", row, data=ran.data, validation=ran.validation)
