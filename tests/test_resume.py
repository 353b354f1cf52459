"""A run that was stopped, killed or made longer ends in the bits of one that was not."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import gpubp
from gpubp.checkpoints import checkpoint
from gpubp.errors import CheckpointError, ConfigError

from .helpers import failing
from .short_runs import COUNT, Stop, finishes_as, hears, held_out, killed, run, same, stopped, training

pytestmark = pytest.mark.usefixtures("short_calls")


@pytest.mark.parametrize(("calls", "number"), [(1, signal.SIGINT), (6, signal.SIGTERM), (9, signal.SIGINT)])
def test_a_run_stopped_by_a_signal_resumes_to_the_same_bits(
    calls: int, number: int, whole: gpubp.Result, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    result = stopped(lambda: run(tmp_path / "run", [Stop(calls, number)]))
    assert result.interrupted == number
    assert result.statuses["running"] >= COUNT - 1
    assert signal.getsignal(signal.SIGINT) is before, "the handlers of before are back"
    assert whole.statuses["diverged"] == 1
    assert len(set(whole.state.memory["scale"].flatten().tolist())) > 1, "plateau did something"
    finishes_as(whole, tmp_path / "run")


def test_a_second_interrupt_ends_at_once(whole: gpubp.Result, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path / "run", [Stop(4, signal.SIGINT), Stop(4, signal.SIGINT)])
    assert not hasattr(caught.value, "result")
    same(gpubp.resume(tmp_path / "run", training(), held_out()), whole)


def test_rounds_without_a_step_can_be_resumed(tmp_path: Path) -> None:
    settings = {"batch_size": 1000, "evaluate_every": 1, "epochs": 20, "schedule": "constant"}
    settings |= {"plateau_patience": None, "plateau_factor": None, "engine": "eager"}
    stopped(lambda: run(tmp_path / "run", [Stop(1, signal.SIGINT)], **settings))
    same(gpubp.resume(tmp_path / "run", training(), held_out()), run(**settings))


@pytest.mark.parametrize("first", [6, 7])
def test_more_epochs_end_as_a_run_begun_with_so_many(first: int, whole: gpubp.Result, tmp_path: Path) -> None:
    short = run(tmp_path / "run", epochs=first)
    assert short.status_names.count("finished") == COUNT - 1
    longer = gpubp.resume(tmp_path / "run", training(), held_out(), epochs=12)
    same(longer, whole)
    assert longer.network_steps == (COUNT - 1) * (12 - first) * 5


def test_networks_at_rest_are_not_evaluated_again_after_a_stop_while_others_end_their_round(
    whole: gpubp.Result, tmp_path: Path
) -> None:
    run(tmp_path / "run", epochs=[3, 4, 4, 4, 4])  # of rounds of 2
    stopped(
        lambda: gpubp.resume(
            tmp_path / "run", training(), held_out(), epochs=12, reporters=[Stop(1, signal.SIGINT)]
        )
    )  # fmt: skip
    same(gpubp.resume(tmp_path / "run", training(), held_out()), whole)


OTHER = "data differ from those that the run started with"


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"epochs": 5}, ConfigError, "epochs 5 would end networks before their present end; give more than before"),
        ({"epochs": 14, "steps": 100}, ConfigError, "this run counts epochs: give only epochs"),
        ({"data": training(2)}, CheckpointError, f"the {OTHER}"),
        *(({"validation": each}, CheckpointError, f"the validation {OTHER}") for each in (training(2), None)),
    ],
)
def test_what_a_run_cannot_go_on_with_is_refused(
    given: dict[str, Any], error: type[Exception], told: str, folder: Path
) -> None:
    with pytest.raises(error, match=told):
        gpubp.resume(folder, **{"data": training(), "validation": held_out(), **given})


def test_a_schedule_that_depends_on_the_length_cannot_be_extended(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1, schedule="cosine", plateau_patience=None, plateau_factor=None, engine="eager")
    with pytest.raises(ConfigError, match="schedule 'cosine' depends on the length of the training, so the run cannot"):
        gpubp.resume(tmp_path / "run", training(), held_out(), epochs=14)


@pytest.mark.parametrize("works", [[2], pytest.param([1, 2], marks=pytest.mark.slow), [5, 6], []], ids=repr)
def test_a_checkpoint_that_cannot_be_written_ends_no_training(
    works: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """works: at which evaluations, of six, a checkpoint can be written; the last one is written after the sixth too."""
    proper, full, told = checkpoint.save, failing(CheckpointError("the disk is full")), list[str]()
    notes = hears(progress=lambda progress: told.extend(progress.notes))

    def save(*given: Any) -> None:
        (proper if given[-1]["number"] in (0, *works) else full)(*given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        result = run(tmp_path / "run", [notes], steps=12, epochs=None)
    whole = run(steps=12, epochs=None)
    same(result, whole)
    again = "the disk is full; training continues, and it is retried every 0 minutes"
    worked = f"{tmp_path / 'run'}: a checkpoint could be written again"
    assert told == {2: [again, worked, again], 1: [again], 5: [again, worked], 0: [again]}[min(works, default=0)]
    assert result.notes == told
    assert result.unsaved == (None if 6 in works else "the disk is full")
    finishes_as(whole, tmp_path / "run")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), pyarrow.ArrowInvalid("no such type")], ids=str
)
def test_results_that_cannot_be_written_lose_no_result(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet.ParquetWriter, "write_table", failing(error))
        result = run(tmp_path / "run", epochs=2)
    assert result.unsaved == f"{tmp_path / 'run'}: the results cannot be written: {error}"
    names = ["checkpoint", "config.yaml", "curves.bin", "history.jsonl"]
    assert sorted(each.name for each in (tmp_path / "run").iterdir()) == names
    again = gpubp.resume(tmp_path / "run", training(), held_out())
    assert (again.unsaved, again.network_steps) == (None, 0)
    assert (tmp_path / "run" / "results.csv").exists()


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_resumes_to_the_same_bits(kills: int, tmp_path: Path) -> None:
    folder, epochs = tmp_path / "run", 30 * kills
    assert killed(kills, folder, partial(run, epochs=epochs), (training, held_out))[-1] < COUNT * epochs * 5
    finishes_as(run(epochs=epochs), folder)
