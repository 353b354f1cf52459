"""Shards of a run as tasks of Ray: the bits of one machine, for any number of shards, also after workers are killed."""

import json
import re
import shutil
import socket
import time
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
import gpubp.checkpoints.curves
from gpubp import cluster
from gpubp.checkpoints import checkpoint, manifests
from gpubp.checkpoints.stored import Source
from gpubp.cli import main
from gpubp.cluster import driver
from gpubp.cluster.driver import Driver
from gpubp.cluster.plan import Plan
from gpubp.cluster.storage import Storage
from gpubp.errors import CheckpointError, ConfigError
from gpubp.search import Hyperband, PopulationBased, SuccessiveHalving

from .clusters import LACKS, LONG, PLAIN, STORE, At, check_same, interrupt, interrupted, kill, slow, trained, watch
from .commands import Capture, run
from .helpers import noted, same_bits
from .short_runs import hears

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_any_number_of_shards_gives_the_bits_of_one_run(
    machines: Any, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"patience": 2, "restore_best": True, "search": Hyperband(2)}
    with pytest.raises(ConfigError, match="shards 16: the run has 15 networks"):
        trained(iris, 16, tmp_path / "3", **more)
    assert not (tmp_path / "3").exists()
    whole = trained(iris, None, tmp_path / "whole", **more)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)  # while shards are joined
        with pytest.raises(KeyboardInterrupt):
            trained(iris, 3, tmp_path / "3", **more)
    with monkeypatch.context() as patch:
        read = noted(patch, Source, "read")
        three = trained(iris, 3, tmp_path / "3", **more)
    assert read == [], "no row has come to this process"
    check_same(whole, three)
    for each in (4, 14):
        curves = [gpubp.checkpoints.curves.read(tmp_path / name, [each])[each] for name in ("whole", "3")]
        assert (curves[0] == curves[1]).all()
    assert sorted(each.name for each in (tmp_path / "3").iterdir()) == [
        "checkpoint", "config.yaml", "curves.bin", "design.parquet", "history.jsonl", "preparation.json",
        "results.csv", "results.parquet", "shards",
    ]  # fmt: skip
    held = sorted(each.relative_to(tmp_path / "3").as_posix() for each in (tmp_path / "3/shards").rglob("*.*"))
    assert [each["file"] for each in manifests.read(tmp_path / "3/checkpoint/manifest.json")["rows"]] == held
    assert len(held) == 3


def test_a_population_trains_in_shards_too(
    machines: Any, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bent(net: torch.Tensor) -> torch.Tensor:
        return net / (1 + net.abs())

    rule = gpubp.Activation(bent, lambda net, out: (1 - out.abs()) ** 2)  # in no table
    population = gpubp.Population.create(gpubp.NetworkSpec((4, 5, 3), rule, loss=iris.loss), count=7, seed=3)
    config = gpubp.TrainConfig(lr=torch.linspace(0.001, 0.1, 7), steps=160, schedule="plateau", evaluate_every=40)
    given = population, iris.training, config, iris.validation
    told, norms, notes, pushed, push = list[Any](), list[int](), list[str](), list[Path](), Storage.push

    def failing(storage: Storage, folder: Path, *more: Any) -> str:
        pushed.append(folder)
        if len(pushed) > 1 and not notes:
            raise CheckpointError("the storage is away")
        return push(storage, folder, *more)

    def progress(progress: Any) -> None:
        told.append(progress.steps)
        notes.extend(progress.notes)

    listening = hears(progress=progress, looked=lambda snapshot: norms.append(len(snapshot.gradient_norms(3))))
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"^file://.*/file/run/shards/driver cannot be written"):
        cluster.train(*given, run_dir=f"file://{tmp_path}/file/run", shards=2, checkpoint_minutes=0)
    monkeypatch.setattr(Storage, "push", failing)  # of the driver
    more: dict[str, Any] = {"shards": 2, "checkpoint_minutes": 0, "reporters": [listening]}
    found = cluster.train(*given, run_dir=f"file://{tmp_path}/run", **more)
    assert notes[0] == "the storage is away; it is retried as long as training continues"
    check_same(gpubp.train(*given), found)
    assert {*told} == {7 * 160}, "of all shards"
    assert max(norms) == 2, "a shard has one of its gradients for 200 network-steps"
    monkeypatch.setitem(gpubp.ACTIVATIONS, "bent", rule)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert same_bits(gpubp.load(tmp_path / "moved").population.params, found.population.params)
    with pytest.raises(ConfigError, match="exists already; name a new one"):
        cluster.train(*given, run_dir=f"file://{tmp_path}/moved", shards=2)


@pytest.mark.parametrize(
    "search",
    [pytest.param(SuccessiveHalving(2), marks=pytest.mark.slow), PopulationBased(2)],
    ids=["halving", "pbt"],
)
def test_searches_decide_over_the_networks_of_all_shards_and_these_meet_nowhere_else(
    machines: Any, iris: Any, tmp_path: Path, search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = [{"lr": 1e300}, *PLAIN[1:]]  # one that diverges, and is stopped or becomes a copy
    whole = trained(iris, None, search=search, design=design, validation=search.name != "pbt")
    met = noted(monkeypatch, Driver, "phase", lambda driver, runs, last: last)
    found = trained(iris, 3, tmp_path / "run", search=search, design=design, validation=search.name != "pbt")
    check_same(whole, found)
    assert found.network_steps == whole.network_steps
    counts = [0, *(each["statuses"].get("stopped") for each in whole.history)]
    rungs = [number for number, (before, after) in enumerate(pairwise(counts), 1) if before != after]
    if search.name == "pbt":
        rungs = [each["round"] for each in whole.search.lineage]
    assert met == [*rungs, None], "where networks are stopped or copied on one machine, and for the last time"
    if search.name == "pbt":
        assert found.search.lineage == whole.search.lineage
        assert len(found.search.lineage) == 2


@pytest.mark.slow
@pytest.mark.parametrize("search", [None, PopulationBased(4)], ids=["plain", "pbt"])
def test_a_run_that_ended_early_goes_on_by_the_same_call(
    machines: Any, iris: Any, tmp_path: Path, search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes while workers wait for what they tell to be heard."""
    more = {**LONG, "epochs": 20, "checkpoint_minutes": 5, "search": search}
    whole = trained(iris, None, **more)
    with monkeypatch.context() as patch:
        patch.setattr(driver, "board", slow)
        with pytest.raises(KeyboardInterrupt) as caught:
            trained(iris, 2, tmp_path / "run", reporters=[At(3, interrupt)], **more)
    result = caught.value.result  # type: ignore[attr-defined]
    assert (result.stopped_by, result.statuses["running"], len(result.table)) == ("SIGINT", 12, 12)
    data, steps, best = iris.validation, result.state.step, int(result.ranking()[0])
    assert 3 * 15 <= steps.min() <= steps.max() < 150, "every shard has saved what was heard of it"
    assert result.ensemble(best=1).evaluate(data)["accuracy"] == pytest.approx(float(result.validation_metric[best]))
    with pytest.raises(ConfigError, match="has shards of a run with other settings or data"):
        trained(iris, 2, tmp_path / "run", **{**more, "epochs": 21})
    with pytest.raises(ConfigError, match=r"shards 3: the run in .* began with 2"):
        trained(iris, 3, tmp_path / "run", **more)
    found = cluster.train_many(
        PLAIN, iris.training, iris.validation, run_dir=tmp_path / "run", widths="4,6,3", loss=iris.loss, epochs=20,
        batch_size=16, evaluate_every=2, search=search, engine="eager",
    )  # fmt: skip
    assert found.network_steps < sum(int(state.step.sum()) for state in whole.states)
    assert found.seconds < found.history[-1]["seconds"], "of this call alone"
    check_same(whole, found)


@pytest.fixture(scope="module")
def begun(machines: Any, iris: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted in its second round."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    with pytest.raises(KeyboardInterrupt):
        trained(iris, 2, folder, reporters=[At(2, interrupt)], **LONG)
    return folder


def test_the_error_of_a_shard_is_raised_once_with_its_number_also_if_the_driver_cannot_save_itself(
    begun: Path, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    for each in (run_dir / "shards" / "1" / "checkpoint").glob("manifest*"):
        each.write_text("{}")
    saves = [None]  # the first

    def push(driver: Driver) -> None:
        if not saves:
            raise CheckpointError("the storage is away")
        saves.pop()

    monkeypatch.setattr(Driver, "push", push)
    with pytest.raises(CheckpointError, match=r"^shard 1: .*manifest.json is not the manifest of a gpubp checkpoint"):
        trained(iris, 2, run_dir, **LONG)


def test_a_call_does_not_go_on_from_where_another_one_was_when_it_began(
    begun: Path, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, proper = Path(shutil.copytree(begun, tmp_path / "run")), Plan.fit
    record = run_dir / "shards" / "driver" / "record.json"

    def meanwhile(*given: Any) -> list[str]:
        record.write_text(record.read_text() + "\n")
        return proper(*given)

    monkeypatch.setattr(Plan, "fit", meanwhile)
    with pytest.raises(CheckpointError, match=r"run: another process has just gone on with it: call again"):
        trained(iris, 2, run_dir, **LONG)


@pytest.mark.parametrize(
    ("point", "search", "told"),
    [
        ("decide", SuccessiveHalving(2), r"^shard 1: .*shards/1 has no checkpoint any more: run_dir on storage"),
        pytest.param(
            "keep",
            None,
            r"1/checkpoint/tensors-.*, which a worker has written, is not there: run_dir on storage",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_files_of_shards_that_are_lost_are_told_of_before_others_build_on_them(
    machines: Any, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, search: Any, told: str
) -> None:
    """As on storage that not all machines share."""
    proper, run_dir = getattr(Driver, point), tmp_path / "run"

    def lose(*given: Any) -> None:
        proper(*given)
        shutil.rmtree(run_dir / "shards" / "1", ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr(Driver, point, lose)
        with pytest.raises(CheckpointError, match=told):
            trained(iris, 2, run_dir, design=PLAIN, search=search)
    if search is None:
        check_same(trained(iris, None, design=PLAIN), trained(iris, 2, run_dir, design=PLAIN))


def test_the_directory_of_a_run_in_shards_is_that_of_any_run(
    machines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "train --data wine --networks 8 --lr 1e-3..1e-1:log --epochs 4 --tensorboard false --engine eager"
    run(f"{flags} --run-dir one", capsys)
    run(f"{flags} --run-dir two --cluster auto --shards 2", capsys)
    assert Path("one/results.csv").read_bytes() == Path("two/results.csv").read_bytes()
    assert "shards: 2" in Path("two/config.yaml").read_text()
    for command in ("inspect two", "report two", "explain two --network 0", "resume two --epochs 6"):
        run(command, capsys)
    run("resume one --epochs 6", capsys)
    run("train --config two/config.yaml --run-dir three --cluster auto", capsys)  # to the 6 epochs
    for other in ("one", "three"):
        assert Path("two/results.csv").read_bytes() == Path(other, "results.csv").read_bytes()
    assert same_bits(*(gpubp.load(each).population.params for each in ("one", "two")))


@pytest.fixture(scope="module")
def node(machines: Any) -> Any:
    """A machine with two GPUs, that Ray believes in, and CPUs for more tasks than that."""
    return machines.add_node(num_cpus=3, num_gpus=2, object_store_memory=STORE)


@pytest.mark.slow
@pytest.mark.parametrize("search", [None, PopulationBased(2)], ids=["plain", "pbt"])
def test_there_is_a_shard_for_each_gpu_and_each_task_has_one_to_itself(
    node: Any, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: Any
) -> None:
    folder = tmp_path / "told"
    folder.mkdir()
    watch(monkeypatch, folder)
    more: dict[str, Any] = {"widths": "4,6,3", "epochs": 4, "batch_size": 16, "search": search, "engine": "eager"}
    found = cluster.train_many(PLAIN, iris.training, run_dir=tmp_path / "run", loss=iris.loss, **more)
    check_same(trained(iris, None, design=PLAIN, validation=False, **more), found)
    assert "shards: 2" in (tmp_path / "run" / "config.yaml").read_text()
    told = [json.loads(each.read_text()) for each in folder.iterdir()]
    assert {each["task"] for each in told} == {"fit", "_train"} | ({"give", "take"} if search else set())
    for each in told:
        assert (each["device"], each["resources"]) == ("cuda", {"GPU": 1.0, "CPU": 1.0})
        assert each["gpus"] == [each["visible"]], "torch sees the GPU that Ray gave, and no other"
    assert {each["visible"] for each in told} == {"0", "1"}
    for one, other in combinations(sorted(told, key=lambda each: each["begun"]), 2):
        assert one["visible"] != other["visible"] or one["ended"] <= other["begun"]
    processes = {each.name.partition("-")[0] for each in folder.iterdir()}
    assert len(processes) == len(told), "or torch would keep the GPU that the process had before"


@pytest.mark.slow
@pytest.mark.parametrize(("first", "told"), [("worker.fit", ""), ("driver._train", "shard [01]: ")])
def test_a_worker_that_finds_no_gpu_is_told_of_in_a_sentence(
    node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, first: str, told: str
) -> None:
    """On the machine where settings are tried, or on another one."""
    watch(monkeypatch, tmp_path, blinded=first)
    flags = "train --data iris --networks 4 --steps 3 --tensorboard false --cluster auto --run-dir"
    assert main([*flags.split(), str(tmp_path / "run")]) == 1
    (error,) = (each for each in capsys.readouterr().err.splitlines() if "error" in each)
    machine = re.escape(socket.gethostname())
    assert re.fullmatch(f"error: {told}machine {machine}: device 'cuda': {LACKS}; use device cpu", error)


@pytest.mark.slow
def test_a_killed_board_a_lost_machine_and_a_killed_worker_cost_the_work_since_the_last_checkpoint(
    machines: Any, node: Any, iris: Any, tmp_path: Path
) -> None:
    """The machine that is lost has half of the shards, or more."""

    def end() -> None:
        time.sleep(0.5)  # in which the board hears of evaluations
        kill("Board")

    reporters = [At(2, end), At(5, lambda: machines.remove_node(node, allow_graceful=False)), At(12, kill)]
    longer = {**LONG, "epochs": 480, "evaluate_every": 8}  # so that some shard trains at each of them
    found = trained(iris, 4, tmp_path / "run", reporters=reporters, **longer)
    assert (found.run_dir, [each.number for each in reporters]) == (tmp_path / "run", [0, 0, 0])
    whole = trained(iris, None, **longer)
    check_same(whole, found)
    steps = sum(int(state.step.sum()) for state in whole.states)
    assert sum(": its worker died; tried again from step " in each for each in found.notes) >= 3
    assert 0 < found.network_steps < steps  # of the tasks that ended: those of killed ones went on from checkpoints
