"""What a cluster does without a worker: refuses, deals networks to shards, keeps their files."""

import shlex
from pathlib import Path
from socket import create_server
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp import cluster
from gpubp.cli import main
from gpubp.cluster import worker
from gpubp.cluster.session import _connected
from gpubp.cluster.shards import Job, dealt
from gpubp.cluster.storage import Storage
from gpubp.cluster.storage import _put as put
from gpubp.commands import outcome, train
from gpubp.errors import CheckpointError, ConfigError
from gpubp.runs.design import Design
from gpubp.runs.making import Source, ready
from gpubp.runs.run import Sets
from gpubp.system import config_file, lock

from .commands import Capture
from .files import status
from .helpers import failing


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--shards 2", "--shards 2: only with --cluster"),
        ("--run-dir s3://bucket/run", "--run-dir s3://bucket/run: only with --cluster"),
        ("--cluster auto --slots 4", "--slots 4: not with --cluster"),
        ("--cluster auto --data tutorial", "--cluster auto: --data tutorial does not have it"),
    ],
)
def test_flags_of_a_cluster_that_do_not_fit_are_refused(flags: str, message: str, capsys: Capture) -> None:
    assert main(f"train {flags}".split()) == 1
    assert message in capsys.readouterr().err


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clusters that runs were sent to, which begin and are lost there."""
    found = list[str]()

    def lost(*given: Any, cluster: str, run_dir: Path, settings: dict[str, Any], **more: Any) -> None:
        found.append(cluster)
        (run_dir / "checkpoint").mkdir(parents=True, exist_ok=True)
        (run_dir / "shards" / "driver").mkdir(parents=True, exist_ok=True)
        lock.file(run_dir).touch()
        config_file.write(run_dir / config_file.FILE, settings, "")
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "train_many", lost)
    return found


@pytest.mark.parametrize("name", ["10.0.0.1:6379", "auto", "ray://10.0.0.1:10001", "local; rm"])
def test_no_file_alone_chooses_a_cluster(tmp_path: Path, at: list[str], name: str, capsys: Capture) -> None:
    settings, run = tmp_path / "settings.yaml", tmp_path / "run"
    settings.write_text(f"data: iris\nnetworks: 4\nsteps: 5\ntensorboard: false\ncluster: '{name}'\n")
    for cause, expected, command in (
        (settings, 2, ["train", "--config", str(settings), "--run-dir", str(run)]),
        (run / "config.yaml", 1, ["resume", str(run)]),
    ):
        assert status(command) == expected
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith(f"error: {cause}: cluster '{name}': a file alone does not choose one, as it could run")
        assert told.endswith(f"if you trust it: --cluster {shlex.quote(name)}")
        assert at == []
        assert (status([*command, "--cluster", name]), at.pop()) == (130, name)
        assert f"continue with: gpubp resume {run} --cluster {shlex.quote(name)}\n" in capsys.readouterr().err
    assert (status(["resume", str(run), "--cluster", "local"]), at.pop()) == (130, "local")


def test_a_file_may_choose_this_machine_alone(tmp_path: Path, at: list[str], capsys: Capture) -> None:
    (tmp_path / "settings.yaml").write_text("data: iris\ntensorboard: false\ncluster: local\n")
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "settings.yaml"), "--run-dir", run]) == 130
    assert main(["resume", run]) == 130
    assert at == ["local", "local"]
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("cluster: local", "cluster: null"))
    assert main(["resume", run, "--cluster", "local"]) == 1
    assert capsys.readouterr().err.endswith("run began on one machine\n")


def ruled(factor: float) -> gpubp.Activation:
    def bent(net: Any) -> Any:
        return net * factor

    return gpubp.Activation(bent, lambda net, out: net * 0 + factor)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"run_dir": "memory://run"}, "the memory of one process"),
        ({"run_dir": "nothing://x"}, "nothing"),
        ({"cluster": "127.0.0.1:1"}, r"cluster '127\.0\.0\.1:1': auto, local, or an address"),
        ({"cluster": "ray://10.0.0.1:10001"}, "that of the head itself is needed, without a protocol such as Ray"),
        ({"cluster": "10.0.0.1:70000"}, "'70000' is no port, 1 to 65535$"),
        ({"cluster": "10.0.0.1"}, "'10.0.0.1' is no port, 1 to 65535$"),
        ({"slots": 3}, "slots 3: not on a cluster, where more `shards` wait for their turn"),
        ({"design": iter([{}])}, "design: an iterator of rows; a cluster deals all at the start"),
        ({"design": [{"hidden": ruled(2.0)}, {"hidden": ruled(3.0)}]}, "hidden 'bent': two rules of one name"),
    ],
)  # fmt: skip
def test_what_a_cluster_cannot_do_is_refused_before_any_training(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="gpubp[cluster] is not installed")
    iris = gpubp.load_data("iris")
    given = {"design": [{}], "run_dir": tmp_path / "run", "widths": "4,3,3", "steps": 1, "loss": iris.loss, **more}
    with pytest.raises(ConfigError, match=message):
        cluster.train_many(data=iris.training, **given)
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_does_not_let_in_is_asked_for_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="gpubp[cluster] is not installed")

    errors = [ConnectionError("Failed to connect"), ray.exceptions.AuthenticationError("no token was found")]

    def refused(where: str, **more: Any) -> None:
        raise errors.pop()

    monkeypatch.setattr(ray, "init", refused)
    with create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        while errors:
            with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token"):
                _connected(ray, address, Sets(gpubp.load_data("iris").training))


def test_shards_cost_the_same_and_hold_every_network_once() -> None:
    rows = [{"widths": f"4,{3 + row % 5},3"} for row in range(23)]
    parts = Source(0, torch.float32, None).planned(Design.of(rows, loss="cross_entropy", epochs=1))
    shards = list(dealt(parts, 4))
    assert sorted(torch.cat([each for shard in shards for each in shard.rows]).tolist()) == list(range(23))
    assert {sum(map(len, shard.rows)) for shard in shards} == {5, 6}
    with pytest.raises(ConfigError, match="shards 24: the run has 23 networks"):
        list(dealt(parts, 24))


def test_after_a_signal_a_shard_that_has_trained_has_figures_and_one_that_has_not_has_none(tmp_path: Path) -> None:
    common = {"loss": "cross_entropy", "epochs": 4, "evaluate_every": 1}
    parts = Source(0, torch.float32, None).planned(Design.of([{"widths": "4,3,3"}] * 3, **common))
    iris = gpubp.load_data("iris")
    sets = ready([parts[0].spec], torch.float32, iris.training, iris.validation, None)
    (shard,), job = dealt(parts, 1), Job(Storage(str(tmp_path)), ("eager",), "cpu", False, 1, 5.0, {}, 1, 0)
    for phase, trained in enumerate((False, True)):
        if trained:
            worker.train(job, shard, sets, phase, None, 2, lambda told: None)
        (figures,) = worker.show(job, shard, sets, phase).end.figures  # type: ignore[union-attr]
        for found in (figures.training, figures.validation):
            assert found.loss.isfinite().tolist() == [trained] * 3


def test_a_save_counts_when_it_is_complete(tmp_path: Path) -> None:
    storage, folder, held = Storage("memory://a/run/3"), tmp_path / "mine", list[str]()
    (folder / "checkpoint").mkdir(parents=True)
    for phase, text in enumerate(("first", "second", "third")):
        (folder / "checkpoint" / "lock").write_text("mine")
        (folder / "checkpoint" / "manifest.json").write_text(text)
        where = storage.push(folder, phase, held)
    system, root = storage._system
    assert storage.saves() == held
    assert len(held) == 2
    thought_dead = list[str]()
    for _ in range(4):  # of a process that was thought dead: they neither count nor delete what others have saved
        storage.push(folder, 1, thought_dead)
    with storage.folder() as found:
        assert (found / "checkpoint" / "manifest.json").read_text() == "third"
        assert not (found / "checkpoint" / "lock").exists()
    system.rm(f"{held[-1]}/complete")
    with storage.folder() as found:
        assert (found / "checkpoint" / "manifest.json").read_text() != "first"
    storage.keep({f"{where}checkpoint/manifest.json"})
    assert system.find(root) == [f"{root}/{where}checkpoint/manifest.json"]
    with storage.file(f"{where}checkpoint/manifest.json") as path:
        assert path.read_text() == "third"


@pytest.mark.parametrize("url", [False, True])
def test_files_are_deleted_only_where_those_that_stay_are_found(tmp_path: Path, url: bool) -> None:
    storage = Storage("dir::file://" + str(tmp_path) if url else str(tmp_path))  # its names are not those of find()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "rows").touch()
    (tmp_path / "0" / "lock").touch()
    stay = {"0/rows"} if url else {"0/rows", "1/rows"}
    with pytest.raises(CheckpointError, match=r"/rows, which a worker has written, is not there: run_dir on storage"):
        storage.keep(stay)
    assert (tmp_path / "0" / "lock").exists()


def test_a_bucket_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """As s3fs makes one, where it may, of a name that is spelt wrong."""

    class Buckets:
        names = {"mine"}

        def exists(self, path: str) -> bool:
            return path in self.names

        def put_file(self, source: str, path: str) -> None:
            if path.partition("/")[0] not in self.names:
                raise FileNotFoundError("The specified bucket does not exist")

        def makedirs(self, path: str, exist_ok: bool) -> None:
            self.names.add(path.partition("/")[0])

    (tmp_path / "file").touch()
    put(Buckets(), tmp_path, "mine/run")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="bucket does not exist"):
        put(Buckets(), tmp_path, "other/run")  # type: ignore[arg-type]
    assert Buckets.names == {"mine"}


def test_a_run_at_a_url_is_copied_before_anything_looks_at_it(capsys: Capture) -> None:
    for command in ("inspect", "report", "resume", "predict --data iris", "explain", "dashboard", "verify"):
        name, *flags = command.split()
        with pytest.raises(SystemExit):
            main([name, "s3://bucket/run", *flags])
        assert "s3://bucket/run: a directory on this machine, to which a run at a URL is" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="run_dir 's3://bucket/run': a path on this machine expected"):
        gpubp.load("s3://bucket/run")


def test_a_signal_ends_a_run_at_a_url_with_a_word_on_how_it_goes_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = KeyboardInterrupt()
    stopped.result = SimpleNamespace(run_dir=None)  # type: ignore[attr-defined]

    monkeypatch.setattr(train, "run", lambda settings: outcome.ended("s3://bucket/run", failing(stopped)))
    assert main(["train", "--data", "iris"]) == 130
    assert capsys.readouterr().err == "s3://bucket/run has all that is saved; continue with the same command\n"


def test_a_url_that_is_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run_dir file://.*/run\[1\]: fsspec takes \* \? \[ for a pattern"):
        Storage.of(f"file://{tmp_path}/run[1]")
    assert Storage.of(tmp_path / "run[1]").local == tmp_path / "run[1]"
