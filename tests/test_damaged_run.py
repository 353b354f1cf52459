"""What stands in the files of a run and is not what was written is refused with the file and the place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

import gpubp
from gpubp.commands import settings as saved
from gpubp.commands import train
from gpubp.errors import CheckpointError, DataError
from gpubp.raw.preparation import Preparation
from gpubp.results import ranking
from gpubp.results.saved import read_results

from .commands import Capture, refused
from .files import status
from .short_runs import sealed

WRITTEN = "--networks 3 --steps 2 --engine eager --device cpu --tensorboard false --run-dir run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line on a file."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "a.csv").write_text("x,c,y\n" + "".join(f"{n}.5,{'uvw'[n % 3]},{'ab'[n % 2]}\n" for n in range(20)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert status(["train", "--data", "a.csv", "--target", "y", *WRITTEN.split()]) == 0
    return folder / "run"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def only_config_yaml(run: Path) -> Path:
    """Make `run` one that was killed before its first checkpoint. -> its config.yaml"""
    for path in run.rglob("*"):
        if path.is_file() and path.name not in ("config.yaml", "lock"):
            path.unlink()
    return run / "config.yaml"


def test_settings_are_read_from_the_checkpoint_whatever_config_yaml_holds(run: Path) -> None:
    path = run / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    for text in (path.read_text().replace("seed:", "sead:"), "seed: 7", "[" * 5000, "\0", None):
        path.unlink() if text is None else path.write_text(text)
        assert saved.settings_of(run, train.kinds()) == settings


def test_settings_that_an_older_version_did_not_have_are_the_defaults(run: Path) -> None:
    path = run / "checkpoint" / "manifest.json"
    content = json.loads(path.read_text())
    defaults = {name: kind(default) for name, (kind, default) in train.kinds().items()}
    names = [name for name in defaults if name not in ("data", "run_dir")]
    for gone in (names[::2], names[1::2], names[:1]):
        others = {key: value for key, value in content["settings"].items() if key not in gone}
        path.write_text(sealed(content | {"settings": others}))
        assert saved.settings_of(run, train.kinds()) == content["settings"] | {name: defaults[name] for name in gone}


def test_a_setting_that_is_missing_mistyped_or_of_another_kind_is_named(run: Path) -> None:
    path = only_config_yaml(run)
    settings, kinds = yaml.safe_load(path.read_text()), train.kinds()
    assert saved.settings_of(run, kinds) == settings

    def is_refused(changed: dict[str, Any], message: str) -> None:
        path.write_text(yaml.safe_dump(changed))
        with pytest.raises(CheckpointError, match=message):
            pytest.fail(f"{message}: {saved.settings_of(run, kinds)}")

    for name in settings:
        is_refused(settings | {name: {"a": 1}}, rf"config.yaml: {name} {{'a': 1}}: .* expected")
    for name in ("data", "lr", "seed", "epochs"):
        others = {key: value for key, value in settings.items() if key != name}
        is_refused(others, "names no data" if name == "data" else f"config.yaml has no setting '{name}'")
        near = f"the setting '{name}s' is unknown; did you mean"
        is_refused(others | {"data": settings["data"], f"{name}s": settings[name]}, near)


@pytest.mark.parametrize("command", ["resume", "explain"])
def test_a_damaged_config_ends_a_command_with_one_line(command: str, run: Path, capsys: Capture) -> None:
    path = only_config_yaml(run)
    kept = path.read_text()
    half, misspelt = kept[: len(kept) // 2], kept.replace("seed:", "sead:")
    for text in (half, misspelt, "[" * 5000, "- 1", "", "\0", "data: [a, {b: c}]"):
        path.write_text(text)
        assert refused([command, str(run)], capsys).startswith(str(path))


Damage = Callable[[pa.Table], pa.Table]
NAMES = ("network", "id", "status", "steps", "diverged_step", "loss", "validation_loss", "lr")
KEYS = {"a number": b"3", "null": b"null", "deep": b"[" * 100_000, "bytes": b"\xff"}


def typed(name: str, cell: Any) -> Damage:
    return lambda rows: rows.set_column(rows.column_names.index(name), name, pa.array([cell] * len(rows)))


DAMAGED: dict[str, tuple[Damage, str]] = {
    "no rows": (lambda rows: rows.slice(0, 0), "has .*: it is not the results of a run"),
    "no network": (lambda rows: rows.drop_columns(["network"]), "has .*: it is not the results of a run"),
    "no diverged_step": (lambda rows: rows.drop_columns(["diverged_step"]), "has .*: it is not the results of a run"),
    "a column twice": (lambda rows: rows.append_column("loss", rows["loss"]), ": 2 columns are called 'loss'; "),
    **{
        f"{name} {cell}": (typed(name, cell), f"column '{name}' holds .*: it is not the results of a run")
        for name in NAMES for cell in (None, "1", [1])
    },
    **{
        f"keys, {name}": (
            lambda rows, keys=keys: rows.replace_schema_metadata({ranking.KEYS: keys}), "not a whole .parquet file")
        for name, keys in KEYS.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_results_that_are_none_are_refused(name: str, run: Path) -> None:
    path, (damage, told) = run / "results.parquet", DAMAGED[name]
    rows = read_results(path).replace_schema_metadata(None)  # without its digest, as older ones are
    pa.parquet.write_table(damage(rows), path)
    for command in (["inspect", str(run)], ["predict", str(run), "--data", str(path)]):
        assert status(command) == 1
    with pytest.raises(CheckpointError, match=rf"results.parquet.*{told}"):
        read_results(path)


def test_a_name_that_is_no_text_in_utf_8_is_refused() -> None:
    found = gpubp.load_data("iris").preparation.to_dict()
    found["classes"] = ["a", "\ud800", "c"]
    with pytest.raises(DataError):
        Preparation.from_dict(found)
