"""A checkpoint is whole at every instant, covered to the bit, and kept beside the one before it; what is damaged is
refused with its reason."""

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gpubp
from gpubp.checkpoints import checkpoint, manifests
from gpubp.errors import CheckpointError
from gpubp.system import config_file, files

from .helpers import same_bits
from .short_runs import (
    CPU,
    NAMES,
    config,
    forge,
    held_out,
    networks,
    same,
    same_state,
    sealed,
    training,
    with_entry,
    with_notes,
)
from .tolerances import COMPILED_TRAINING

pytestmark = pytest.mark.usefixtures("short_calls")


def damage(folder: Path, what: str, name: str = "manifest.json") -> None:
    """Do `what` to the checkpoint whose manifest is `name`."""
    manifest = folder / name
    content = json.loads(manifest.read_text())
    tensors = folder / content["tensors"]
    if what == "a flipped bit":
        held = bytearray(tensors.read_bytes())
        held[-5] ^= 1
        tensors.write_bytes(held)
    elif what == "no tensors":
        tensors.unlink()
    elif what == "truncated manifest":
        manifest.write_text(manifest.read_text()[:200])
    elif what == "bytes":
        manifest.write_bytes(b"\xff\xfe\x00garbage")
    elif what == "nested":
        manifest.write_text("[" * 100_000)
    elif what == "no manifest":
        manifest.unlink()
    elif what == "another seed":
        manifest.write_text(json.dumps(content | {"seed": 4}))
    elif what == "no digest":
        manifest.write_text(json.dumps({name: value for name, value in content.items() if name != "manifest_sha256"}))
    else:
        changed = {"foreign": content | {"format": "another"}, "newer": content | {"version": manifests.VERSION + 1},
                   "no spec": with_entry(content, spec={}), "no notes": with_entry(content, notes={}),
                   "no optimizer": with_entry(content, config={"optimizer": "adamm", "epochs": 3}),
                   "two populations": content | {"populations": 2 * content["populations"]},
                   "settings": content | {"settings": [1]}}  # fmt: skip
        manifest.write_text("[]" if what == "a list" else sealed(changed[what]))


STEPS_OF = {1: 16, 2: 29, 3: 29, 4: 29, 5: 30}  # the checkpoints of older versions
DAMAGE = {
    "a flipped bit": r"tensors-\d+\.safetensors is damaged: its SHA-256 is not the one in manifest.json",
    "no tensors": "safetensors cannot be read: No such file or directory",
    "truncated manifest": "manifest.json cannot be read: ",
    "bytes": "manifest.json cannot be read: ",
    "nested": "manifest.json cannot be read: ",
    "no manifest": "manifest.json is missing: .* is not the directory of a run, or it saved nothing",
    "another seed": "manifest.json is damaged: its SHA-256 is not the one in it",
    "no digest": "manifest.json is damaged: its SHA-256 is not the one in it",
    "foreign": "manifest.json is not the manifest of a gpubp checkpoint",
    "a list": "manifest.json is not the manifest of a gpubp checkpoint",
    "no spec": "does not hold a complete state: network settings lack widths",
    "no optimizer": "run: optimizer 'adamm' is in no table of this process; add it",
    "no notes": "does not hold a complete state: 'number' is missing",
    "two populations": "does not hold a complete state: 'hyper.lr' is missing",
    "settings": "does not hold a complete state: settings are a list; values by name expected",
}


def whole_pairs(folder: Path) -> list[str]:
    """The manifests in `folder`, a run's, that can be resumed from."""
    found = []
    for name in NAMES:
        with suppress(CheckpointError):
            checkpoint._read(folder / "checkpoint" / name, CPU)
            found.append(name)
    return found


@pytest.mark.parametrize("what", DAMAGE)
def test_the_previous_checkpoint_replaces_a_damaged_one_which_is_told_unless_it_is_damaged_too(
    what: str, folder: Path
) -> None:
    first = checkpoint.load(folder, CPU)
    assert first.told == ()
    damage(folder / "checkpoint", what)
    before = checkpoint.load(folder, CPU)
    assert int(before.populations[0].state.step.max()) < int(first.populations[0].state.step.max())
    (note,) = before.told
    assert re.search(DAMAGE[what], note)
    assert note.endswith(f"; the previous checkpoint is used, of round {before.notes['number']}")
    with pytest.warns(UserWarning, match="the previous checkpoint is used, of round"):
        assert torch.equal(gpubp.load(folder).population.params, before.populations[0].state.population.params)
    damage(folder / "checkpoint", "no tensors" if what == "no notes" else "no notes", "manifest.previous.json")
    with pytest.raises(CheckpointError, match=DAMAGE[what]):
        gpubp.resume(folder, training(), held_out())


def test_untrained_networks_do_not_predict_instead_of_damaged_ones_and_go_on_to_the_same_bits(tmp_path: Path) -> None:
    folder, length = tmp_path / "run", config(epochs=2)
    whole = gpubp.train(networks(), training(), length, held_out(), run_dir=folder)
    damage(folder / "checkpoint", "a flipped bit")
    with pytest.warns(UserWarning, match="is used, of round 0"), pytest.raises(CheckpointError) as caught:
        gpubp.load(folder)
    assert "of round 0, whose networks are untrained and cannot predict; gpubp resume " in str(caught.value)
    again = gpubp.resume(folder, training(), held_out())
    same(again, whole)
    assert re.search("the previous checkpoint is used, of round 0$", *again.notes)
    assert gpubp.resume(folder, training(), held_out()).notes == []
    assert torch.equal(gpubp.load(folder).population.params, whole.population.params)


@pytest.mark.parametrize(
    ("name", "value"),
    [("number", -1), ("number", True), ("number", 700), ("number", 10**30), ("number", 1.0), ("seconds", float("nan")),
     ("seconds", "1"), ("seconds", -1), ("engine", "none"), ("engine", []), ("engine_reason", None),
     ("engine_reason", 5), ("data", 5), ("validation", {})],
)  # fmt: skip
def test_invalid_notes_are_refused_even_with_a_right_digest(name: str, value: Any, folder: Path) -> None:
    given = {name: value}
    forge(folder, lambda manifest: given if name == "seconds" else with_notes(manifest, **given))
    with pytest.raises(CheckpointError, match=r"does not hold a complete state: "):
        checkpoint._read(folder / "checkpoint" / "manifest.json", CPU)
    assert checkpoint.load(folder, CPU).older


@pytest.mark.parametrize("number", [0, 1])
def test_networks_that_are_beyond_their_round_are_refused(number: int, folder: Path) -> None:
    forge(folder, lambda manifest: with_notes(manifest, number=number))
    with pytest.raises(CheckpointError, match=f"steps do not match round {number}"):
        gpubp.resume(folder, training(), held_out())


def test_a_checkpoint_of_a_later_version_is_refused_even_if_there_is_another(folder: Path) -> None:
    damage(folder / "checkpoint", "newer")
    with pytest.raises(CheckpointError, match=r"manifest.json has version 9; this gpubp reads versions 1 to 8"):
        gpubp.resume(folder, training(), held_out())


def test_slots_of_nothing_but_zeros_take_no_room_in_a_first_checkpoint(folder: Path, tmp_path: Path) -> None:
    saved, first = checkpoint.load(folder, CPU), tmp_path / "first"
    state, names = saved.populations[0].state, [*saved.populations[0].config.rule.slots]
    for slot in state.slots:
        slot.zero_()
    state.slots[-1][0, 0] = -0.0
    (first / "checkpoint").mkdir(parents=True)
    for version, zeros in ((8, [f"0.slots.{name}" for name in names[:-1]]), (6, [])):
        checkpoint.save(first, saved.populations, saved.notes | {"number": 0})
        manifest = manifests.read(first / "checkpoint" / manifests.MANIFEST)
        assert (manifest["version"], manifest.get("zeros", [])) == (version, zeros)
        assert not {*zeros} & {*load_file(first / "checkpoint" / manifest["tensors"])}
        same_state(checkpoint.load(first, CPU).populations[0].state, state)


def test_every_bit_of_a_manifest_that_means_something_is_covered(folder: Path) -> None:
    manifest = folder / "checkpoint" / "manifest.json"
    sound, unnoticed = manifest.read_bytes(), []
    meant = json.loads(sound)
    for place in range(0, 8 * len(sound), 29):  # all bits of a byte, in turns
        flipped = bytearray(sound)
        flipped[place // 8] ^= 1 << place % 8
        manifest.write_bytes(flipped)
        if manifests.named(manifest.read_bytes()) and json.loads(flipped) != meant:
            unnoticed.append(place)
    assert not unnoticed


def older_run(version: int, folder: Path) -> Path:
    """Copy the run that an older version left. -> where it is kept"""
    kept = Path(__file__).parent / "checkpoints" / f"version-{version}"
    shutil.copytree(kept, folder / "checkpoint")
    for name in ("history.jsonl", "config.yaml") if version > 2 else ():
        (folder / "checkpoint" / name).rename(folder / name)
    return kept


@pytest.mark.cpu("goes on with what the engine cpu began")
@pytest.mark.parametrize("version", STEPS_OF)
def test_a_checkpoint_of_an_older_version_resumes_and_is_kept_until_the_next(
    version: int, tmp_path: Path, whole: gpubp.Result
) -> None:
    if whole.engine != "cpu":
        pytest.skip(whole.engine_reason)
    folder = tmp_path / "run"
    older = older_run(version, folder)
    manifest = json.loads((folder / "checkpoint" / "manifest.json").read_text())
    assert (manifest["version"], "manifest_sha256" in manifest) == (version, version > 1)
    assert int(checkpoint.load(folder, CPU).populations[0].state.step.max()) == STEPS_OF[version]
    again = gpubp.resume(folder, training(), held_out())
    for (name, mine), (_, theirs) in zip(again.state.tensors(), whole.state.tensors(), strict=True):
        torch.testing.assert_close(
            mine, theirs, **COMPILED_TRAINING, equal_nan=True, msg=name
        )  # they rounded otherwise
    assert again.status_names == whole.status_names
    if version > 2:  # of which config.yaml is kept
        wrote = config_file.read(older / "config.yaml")
        assert checkpoint.settings(folder) == wrote == config_file.read(folder / "config.yaml")
    rounds = [each["round"] for each in again.history]
    assert rounds == [each["round"] for each in whole.history], "the history that was in the manifest goes on"
    assert whole_pairs(folder) == ["manifest.json", "manifest.previous.json"]


def test_a_sum_of_losses_in_the_type_of_the_networks_is_read_as_float64(folder: Path) -> None:
    """As it was up to version 2."""
    before, path = checkpoint.load(folder, CPU).populations[0].state.total, folder / "checkpoint" / "manifest.json"
    manifest = json.loads(path.read_text())
    tensors = path.parent / manifest["tensors"]
    save_file(load_file(tensors) | {"0.total": before.float()}, tensors)
    path.write_text(sealed(manifest | {"sha256": files.digest(tensors)}))
    loaded = checkpoint.load(folder, CPU)
    assert not loaded.told, "it is this checkpoint that was read"
    assert same_bits(loaded.populations[0].state.total, before.float().double())
