"""Every network's curve is that of the network alone, whatever happened to the run; the file is bounded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.checkpoints import curves

from .helpers import failing
from .short_runs import COUNT, config, finishes_as, held_out, networks, run, training

pytestmark = pytest.mark.usefixtures("short_calls")


def lone(row: int) -> list[dict[str, Any]]:
    """The history of one network, whose quantiles are its own figures."""
    kept = networks().take(torch.tensor([row]))
    one = config(lr=config().lr[row])
    return gpubp.train(kept, training(), one, held_out()).history


def test_a_curve_is_the_history_of_the_network_alone(tmp_path: Path) -> None:
    result = run(tmp_path / "run")
    found = curves.read(tmp_path / "run", range(COUNT))
    assert set(found) == {row for row, name in enumerate(result.status_names) if name != "diverged"}
    for row, records in found.items():
        alone = lone(row)
        assert records["step"].tolist() == [each["step"] for each in alone]
        for name in ("loss", "validation_loss"):
            np.testing.assert_array_equal(records[name], np.float32([each[name]["median"] for each in alone]))


def test_a_run_that_was_killed_and_resumed_has_the_same_curves(
    whole: gpubp.Result, folder: Path, tmp_path: Path
) -> None:
    with (folder / curves.FILE).open("ab") as file:
        file.write(b"half of a record")
    finishes_as(whole, folder)
    run(tmp_path / "once")
    once, again = (curves.read(each, range(COUNT)) for each in (tmp_path / "once", folder))
    assert once.keys() == again.keys()
    assert all(each.tobytes() == again[row].tobytes() for row, each in once.items())


def test_curves_that_cannot_be_written_end_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "add", failing(OSError(28, "No space left on device")))
    result = run(tmp_path / "run")
    assert [note for note in result.notes if "curves" in note] == [
        f"{tmp_path / 'run'}: the curves of networks end, as they cannot be written: [Errno 28] No space left on device"
    ]
    assert result.unsaved is None
    assert curves.read(tmp_path / "run", [0]) == {}


def losses(rows: list[int], step: int, loss: float) -> curves.Losses:
    many = torch.ones(len(rows))
    return curves.Losses(torch.tensor(rows), (many * step).long(), many.double() * loss, None)


def test_the_last_of_two_points_of_a_network_counts_and_others_are_not_mixed_in(tmp_path: Path) -> None:
    for number, (step, loss) in enumerate([(5, 0.5), (10, 0.25), (5, 0.75), (15, float("nan"))], 1):
        curves.add(tmp_path, number, [losses([0, 2], step, loss), losses([7], step, 2 * loss)])
    found = curves.read(tmp_path, [2, 7, 8])
    assert {row: each["loss"].tolist() for row, each in found.items()} == {2: [0.75, 0.25], 7: [1.5, 0.5]}
    assert found[2]["step"].tolist() == [5, 10]
    assert np.isnan(found[2]["validation_loss"]).all()


def test_the_file_is_bounded_in_networks_and_rounds(tmp_path: Path) -> None:
    last = curves.NETWORKS - 1
    for number in range(1, 5001):
        curves.add(tmp_path, number, [losses([last, last + 1], number, 1.0)])
    steps = curves.read(tmp_path, [0, last, last + 1])[last]["step"]
    assert steps[:511].tolist() == [*range(1, 512)]
    assert len(steps) < 512 + 256 * np.log2(5000 / 512)
    assert max(np.diff(steps[510:]) / steps[511:]) <= 1 / 256
    assert (tmp_path / curves.FILE).stat().st_size == len(steps) * curves.KIND.itemsize


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_curves_go_into_no_file_that_a_link_names(kind: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 10)
    (tmp_path / "run").mkdir()
    place = tmp_path / "run" / curves.FILE
    place.symlink_to(victim) if kind == "link" else place.hardlink_to(victim)
    with pytest.raises(OSError, match="symbolic" if kind == "link" else "another file"):
        curves.add(place.parent, 1, [losses([0], 1, 1.0)])
    assert victim.read_bytes() == b"precious" * 10
