"""A run directory that something or somebody changed is refused in a sentence, or goes on to the same bits: no crash of
the process, no difference without a note, no file written but those of the run."""

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import gpubp
from gpubp.cli import main
from gpubp.errors import CheckpointError, GpubpError
from gpubp.system import files

from . import mutations
from .short_runs import same, sealed, told

SHORT, LONG = 6, 12  # epochs of the run that is changed, and of those that go on with it
CORNERS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
OTHERS = (torch.float16, torch.int8, torch.int64, torch.float64, torch.bool)


def source() -> Any:
    return gpubp.load_data("xor")


def train(folder: Path, epochs: int) -> gpubp.Result:
    data = source()
    population = gpubp.Population.create(gpubp.NetworkSpec((2, 3, 1), loss=data.loss), 3, seed=4)
    config = gpubp.TrainConfig(
        lr=[0.01, 0.05, 0.1], dropout=0.2, batch_size=3, epochs=epochs, evaluate_every=2, schedule="plateau",
        plateau_patience=0,
    )  # fmt: skip
    settings = {"data": "xor", "epochs": epochs, "seed": 4}
    return gpubp.train(population, data.training, config, data.training, run_dir=folder, settings=settings)


def go_on(folder: Path | str) -> gpubp.Result:
    data = source()
    return gpubp.resume(folder, data.training, data.training, epochs=LONG)


@pytest.mark.parametrize("call", [gpubp.load, go_on, lambda name: gpubp.replay(name, 0, data=source().training)])
def test_a_name_that_is_too_long_for_a_directory_is_refused(call: Callable[[Any], object]) -> None:
    with pytest.raises(CheckpointError, match=r"File name too long$"):
        call("a" * 300)


@pytest.fixture(name="made", scope="module")
def a_whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    train(folder, SHORT)
    (folder / "tensorboard").mkdir()
    return folder


@pytest.fixture(name="whole", scope="module")
def the_run_that_goes_on(made: Path, tmp_path_factory: pytest.TempPathFactory) -> list[gpubp.Result]:
    """And the one that was begun with as many epochs, as one goes on of whose checkpoints the first is left: the
    networks of the other have finished once more."""
    folder = tmp_path_factory.mktemp("whole")
    both = [go_on(Path(shutil.copytree(made, folder / "run"))), train(folder / "other", LONG)]
    same(*both)
    return both


# What is done to a directory: by a source of random choices. -> what was done, in words.


def bytes_of(folder: Path, chance: random.Random) -> str:
    path = chance.choice(files_of(folder))
    content, what = mutations.damaged(path.read_bytes(), chance)
    path.write_bytes(content)
    return f"{path.name}: {what}"


def places(folder: Path, chance: random.Random) -> str:
    """Something else than a file, or another file, in the place of one."""
    path, another = chance.choice(files_of(folder)), chance.choice(files_of(folder)).read_bytes()
    return f"{path.name}: {mutations.replaced(path, chance, another, folder.parent / 'victim')}"


def leftovers(folder: Path, chance: random.Random) -> str:
    """Links where a process may write."""
    name = chance.choice(["config.yaml", "results.csv", "results.parquet", "history.jsonl", "preparation.json",
                          "checkpoint/manifest.json", "checkpoint/manifest.previous.json", "checkpoint/tensors-4",
                          "checkpoint/.tmpabcdef"])  # fmt: skip
    path = folder / (name if "tmp" in name else f"{name}.writing")
    path.symlink_to(folder.parent / "victim")
    return f"{path.name}: a link"


def tensors(folder: Path, chance: random.Random) -> str:
    """Other tensors, whose digests are right."""
    manifest = folder / "checkpoint" / chance.choice(["manifest.json", "manifest.json", "manifest.previous.json"])
    found = json.loads(manifest.read_text())
    path = manifest.parent / found["tensors"]
    content = load_file(path)
    name = chance.choice(sorted(content))
    tensor, kind = content[name], chance.choice(["type", "cut", "longer", "wider", "flat", "gone", "negative", "large"])
    changed: dict[str, Callable[[], torch.Tensor]] = {
        "type": lambda: tensor.to(chance.choice([each for each in OTHERS if each != tensor.dtype])),
        "cut": lambda: tensor[..., : tensor.shape[-1] // 2],
        "longer": lambda: torch.cat([tensor, tensor]),
        "wider": lambda: tensor[..., None].expand(*tensor.shape, 2),
        "flat": lambda: tensor.flatten()[:1],
        "negative": lambda: -tensor.abs() - 1 if name not in CHECKED_BY_NOBODY else tensor[:0],
        "large": lambda: torch.full_like(tensor, 120) * (1 if tensor.dtype == torch.int8 else 1 << 55)
        if not tensor.is_floating_point() else tensor[:0],
    }  # fmt: skip
    if kind == "gone":
        del content[name]
    else:
        content[name] = changed[kind]().contiguous()
    save_file(content, path)
    manifest.write_text(sealed(found | {"sha256": files.digest(path)}))
    return f"{manifest.name}: {name}: {kind}"


CHECKED_BY_NOBODY = ("0.params", "0.slots.mean", "0.slots.square", "0.loss", "0.total", "0.memory.best",
                     "0.columns.power1", "0.columns.power2")  # fmt: skip
# whose numbers may be any


def notes(folder: Path, chance: random.Random) -> str:
    """Something else in a manifest, whose digest is right."""
    manifest = folder / "checkpoint" / chance.choice(["manifest.json", "manifest.json", "manifest.previous.json"])
    found, what = mutations.elsewhere(json.loads(manifest.read_text()), chance)
    manifest.write_text(sealed(found))
    return f"{manifest.name}: {what}"


CHANGES = (bytes_of, places, tensors, notes, leftovers)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def predicted(folder: Path) -> Any:
    """What the networks of a run say, unless that is refused, or what a person is told."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            best = gpubp.load(folder).predict_proba(CORNERS)
        except GpubpError as error:
            return str(error)
    return str(said[0].message) if said else best


def difference(folder: Path, whole: list[gpubp.Result], best: Any) -> str | None:
    """What a changed run does that it should not."""
    found = predicted(folder)
    if not isinstance(found, str) and not np.array_equal(found, best):
        return "other predictions"
    main(["inspect", str(folder)])
    try:
        result = go_on(folder)
    except GpubpError:
        return None
    if told(result) not in map(told, whole) and not any("the history restarts" in note for note in result.notes):
        return "another history"
    try:
        same(result, whole[0])
    except AssertionError as error:
        return f"other bits: {error}"
    left = [path.name for path in folder.rglob("*") if path.name.endswith(".writing") or path.name.startswith(".tmp")]
    return f"left: {left}" if left else None


@pytest.mark.parametrize(("first", "count"), [(0, 5), pytest.param(5, 2000, marks=pytest.mark.slow)], ids=["5", "2000"])
def test_a_changed_run_is_refused_or_ends_in_the_same_bits(
    first: int, count: int, made: Path, whole: list[gpubp.Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, folder, victim = predicted(made), tmp_path / "run", tmp_path / "victim"
    assert isinstance(best, np.ndarray)
    for number in range(first, first + count):
        victim.write_text("somebody's")
        shutil.copytree(made, folder)
        chance = random.Random(number)
        what = CHANGES[number % len(CHANGES)](folder, chance)
        wrong = difference(folder, whole, best)
        assert wrong is None, f"change {number}, {what}: {wrong}"
        assert victim.read_text() == "somebody's", f"change {number}, {what}"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "victim"], f"change {number}, {what}"
        assert "Traceback" not in capsys.readouterr().err
        shutil.rmtree(folder)
