"""What a person sees while a population trains, and what is there to see in TensorBoard afterwards."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import gpubp
from gpubp import reporters
from gpubp.cli import main
from gpubp.errors import CheckpointError, ConfigError
from gpubp.reporters import Progress, Start, console
from gpubp.reporters.console import ConsoleReporter
from gpubp.results.saved import read_results
from gpubp.search import SuccessiveHalving

from .helpers import failing
from .short_runs import Crash, hears


def ragged() -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
    inputs = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    return inputs, inputs.sum(1, keepdim=True), [list(range(100)), list(range(10))]


def short(*others: gpubp.Reporter, **settings: Any) -> gpubp.Result:
    population, data = gpubp.Population.create(gpubp.NetworkSpec((3, 4, 1)), 2), gpubp.Dataset(*ragged()[:2])
    config = gpubp.TrainConfig(steps=20, evaluate_every=5)
    return gpubp.train(population, data, config, engine="eager", reporters=others, **settings)


def shown(terminal: bool) -> str:
    """Everything that a run of 50 networks writes."""
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = gpubp.Dataset(inputs, (inputs.sum(1) > 0).long())
    population = gpubp.Population.create(gpubp.NetworkSpec((3, 4, 2), loss="cross_entropy"), 50)
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=80, soft_wrap=True)
    config = gpubp.TrainConfig(epochs=8, batch_size=8)
    gpubp.train(population, data, config, engine="eager", validation=data, reporters=[ConsoleReporter(screen)])
    return screen.file.getvalue()


def test_a_terminal_of_80_columns_shows_a_bar_with_rate_time_left_and_accuracy() -> None:
    text = shown(terminal=True)
    assert "━" in text
    assert " left " in text
    assert "network-steps/s, accuracy 0." in text
    assert "…" not in text


def test_without_a_terminal_there_are_plain_lines() -> None:
    text = shown(terminal=False)
    assert "\x1b" not in text
    assert "━" not in text
    assert "50 networks of 26 parameters" in text
    assert "50 finished" in text.splitlines()[-1]


def test_the_last_line_has_the_medians_of_the_results() -> None:
    """Whatever the evaluations before were: of rows that are not restored, of losses while training."""
    data, screen = gpubp.Dataset(*ragged()[:2]), Console(file=io.StringIO(), width=80, soft_wrap=True)
    config = gpubp.TrainConfig(steps=40, lr=torch.tensor([0.001, 0.1, 0.3, 1.0]), evaluate_every=10, restore_best=True)
    population = gpubp.Population.create(gpubp.NetworkSpec((3, 4, 1)), 4)
    for held_out in (gpubp.Dataset(*ragged()[:2]), None):
        result = gpubp.train(population, data, config, held_out, engine="eager", reporters=[ConsoleReporter(screen)])
        found = result.table.to_pandas().median(numeric_only=True)
        told = f"loss {found['loss']:.4g}, r2 {found['r2']:.4g} (best "
        if held_out is not None:
            losses = f"loss {found['loss']:.4g}, validation {found['validation_loss']:.4g}"
            told = f"{losses}, r2 {found['validation_r2']:.4g} (best "
        assert f" 4 finished. median {told}" in screen.file.getvalue().splitlines()[-1]


def test_the_time_left_knows_nothing_of_the_first_call_which_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    screen, bar = (Console(file=io.StringIO(), force_terminal=each, width=80, soft_wrap=True) for each in (False, True))
    reporter, other = ConsoleReporter(screen), ConsoleReporter(bar)
    for each in (reporter, other):
        each.start(Start(networks=1, parameters=3, steps=1000, done=0, step=0, engine_reason="", run_dir=None))
    for now, done in ((30.0, 100), (33.0, 200), (36.0, 400)):
        clock[0] = now
        reporter.progress(Progress(done, 1.0, 1, steps=1000))
    lines = screen.file.getvalue().splitlines()[1:]
    assert len(lines) == 1, "nothing before the first call is over and five seconds have passed"
    assert " 40 % " in lines[0]
    assert " 12 s left " in lines[0]
    clock[0] = 42.0
    reporter.progress(Progress(5000, 1.0, 1, steps=0))
    assert screen.file.getvalue().splitlines()[-1].startswith("5,000 network-steps  "), "of an unknown number"
    other.progress(Progress(500, 1.0, 1, steps=0))
    assert other.bar.tasks[0].total is None
    other.failed()


def test_lines_come_first_and_their_brackets_are_literal() -> None:
    screen = Console(file=io.StringIO(), force_terminal=False, width=80, soft_wrap=True)
    told = ["rows: 64", "target [red] of 'a[b]'"]
    short(ConsoleReporter(screen), lines=told)
    lines = screen.file.getvalue().splitlines()
    assert lines[:2] == told
    assert lines[2].startswith("memory: 528 B a network (21 parameters 84 B, their copy 84 B, optimizer adam 168 B, ")
    assert lines[3].startswith("2 networks of 21 parameters. ")


class Fails(gpubp.Reporter):
    """Cannot write from evaluation `number` on."""

    def __init__(self, number: int) -> None:
        self.number, self.heard = number, 0

    def evaluated(self, record: Any) -> None:
        self.heard += 1
        if record["round"] >= self.number:
            raise OSError(28, "No space left on device")


def test_reporters_that_cannot_write_end_no_training_and_the_others_hear_why() -> None:
    screen = Console(file=io.StringIO(), force_terminal=False, width=80, soft_wrap=True)
    fails = Fails(2)
    full = hears(progress=failing(OSError(28, "No space left on device")))
    result = short(full, fails, ConsoleReporter(screen))
    why = "cannot write, and stops reporting: [Errno 28] No space left on device"
    assert (fails.heard, result.notes, len(result.history)) == (2, [f"Hears {why}", f"Fails {why}"], 4)
    assert all(note in screen.file.getvalue() for note in result.notes)


def trained(reporter: gpubp.Reporter, *others: gpubp.Reporter, **settings: Any) -> gpubp.Result:
    """A network ends early, so that from round 2 on every record is of one step."""
    inputs, targets, rows = ragged()
    population = gpubp.Population.create(gpubp.NetworkSpec((3, 4, 1)), 2)
    config = gpubp.TrainConfig(batch_size=10, epochs=[1, 9], evaluate_every=1)
    data = gpubp.Dataset(inputs, targets, rows=rows)
    if "resume" in settings:
        return gpubp.resume(settings["resume"], data, reporters=[reporter])
    return gpubp.train(population, data, config, engine="eager", reporters=[reporter, *others], **settings)


def points(folder: Path) -> Callable[[str], list[tuple[int, float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return lambda tag: [(event.step, event.value) for event in read.Scalars(tag)]


@pytest.mark.parametrize(
    "minutes",
    [pytest.param(0.0, marks=pytest.mark.slow), 5.0],
    ids=["after a checkpoint", "before the second checkpoint"],
)
def test_tensorboard_shows_every_evaluation_once_after_a_run_was_killed(minutes: float, tmp_path: Path) -> None:
    curves = lambda: gpubp.TensorBoardReporter(tmp_path / "run" / "tensorboard")  # noqa: E731
    with pytest.raises(RuntimeError, match="crashed"):
        trained(curves(), Crash(5), run_dir=tmp_path / "run", checkpoint_minutes=minutes)
    result = trained(curves(), resume=tmp_path / "run")
    trained(gpubp.TensorBoardReporter(tmp_path / "whole"))
    found, whole = points(tmp_path / "run" / "tensorboard"), points(tmp_path / "whole")
    assert len(whole("training/loss/median")) == len(result.history) == 9
    for tag in ("training/loss/median", "vitals/learning_rate/median", "vitals/training_r2/median"):
        assert found(tag) == whole(tag)
    assert found("vitals/training_r2/median") == [(19, pytest.approx(float(result.metric.min())))], "steps of both"


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_quantiles_are_those_of_the_finite_values_in_order(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)).double()
    ordered = values.sort().values.tolist()
    mixed = torch.cat([values, torch.tensor([float("nan"), float("inf")])])
    expected = {name: ordered[round(share * (count - 1))] for name, share in reporters.QUANTILES.items()}
    assert reporters.quantiles(mixed) == expected


@pytest.mark.parametrize("kind", [TypeError, KeyboardInterrupt])
def test_what_a_reporter_raises_at_the_end_has_the_result(kind: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(kind, match="broken") as caught:
        short(hears(finish=failing(kind("broken"))), run_dir=tmp_path / "run")
    assert caught.value.result.status_names == ["finished"] * 2  # type: ignore[attr-defined]
    assert caught.value.__notes__ == ["the training has ended; this exception's `result` has the outcome"]
    assert (tmp_path / "run" / "results.csv").exists()


def test_what_a_reporter_raises_of_an_evaluation_has_the_result_where_no_run_directory_has_it() -> None:
    class Broken(gpubp.Reporter):
        def evaluated(self, record: Any) -> None:
            if record["step"] == 10:
                raise KeyError("loss")

    with pytest.raises(KeyError, match="loss") as caught:
        short(Broken())
    result = caught.value.result  # type: ignore[attr-defined]
    assert (result.state.step.tolist(), len(result.history)) == ([10, 10], 2)
    assert caught.value.__notes__ == ["the training ended early; this exception's `result` has the outcome"]


def test_what_is_no_reporter_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Unfinished:
        start = progress = evaluated = lambda self, told: None

    for given, message in ((Unfinished(), r"Unfinished has no method finish\(\)"), (3, "int has no method start")):
        for train in (short, lambda *each, **where: trained(*each, resume=tmp_path / "run")):
            with pytest.raises(ConfigError, match=f"reporters: {message}"):
                train(given, run_dir=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_folder_without_room_for_curves_is_refused_before_the_first_step_and_the_run_can_restart(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"no curves can be written to .*file/curves: "):
            short(gpubp.TensorBoardReporter(tmp_path / "file" / "curves"), run_dir=tmp_path / "run")
    assert short(run_dir=tmp_path / "run").status_names == ["finished"] * 2


@pytest.mark.parametrize("writes", [10, 0])
def test_a_disk_that_is_full_of_curves_ends_no_training_and_the_exit_status_is_3(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = pytest.importorskip("tensorboard.summary.writer.record_writer")
    proper, left = records.RecordWriter.write, iter(range(writes))

    def write(self: Any, data: bytes) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        proper(self, data)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records.RecordWriter, "write", write)
    command = "train --data xor --networks 2 --steps 20 --evaluate-every 1 --run-dir run --engine eager --device cpu"
    status = main(command.split())
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    if writes:
        note = "TensorBoardReporter cannot write, and stops reporting: [Errno 28] No space left on device"
        assert (status, told.err.count(note), "look: gpubp inspect run\n" in told.out) == (3, 1, True)
    else:
        assert (status, "error: no curves can be written to run/tensorboard: " in told.err) == (1, True)
    monkeypatch.setattr(records.RecordWriter, "write", proper)
    assert main(command.split()) == (1 if writes else 0), "a run that did not begin is in nobody's way"


def test_a_run_that_ends_by_an_error_gives_the_screen_and_the_files_back(tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    bar, curves = ConsoleReporter(screen), gpubp.TensorBoardReporter(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        short(bar, curves, hears(evaluated=failing(RuntimeError("broken"))))
    assert not bar.bar.live.is_started
    assert curves.file.file.closed


@pytest.mark.parametrize("piece", [2, 9])
def test_a_results_table_with_a_flipped_bit_is_refused_or_what_was_written(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is written in pieces, as that of very many networks."""
    monkeypatch.setattr("gpubp.results.table.PIECE", piece)
    result = gpubp.train(
        gpubp.Population.create(gpubp.NetworkSpec((1, 1)), 3), gpubp.Dataset([[1.0], [2.0]], [[1.0], [2.0]]),
        gpubp.TrainConfig(steps=2, lr=[0.1, 0.2, 1e30], optimizer="sgd"), run_dir=tmp_path / "run", engine="eager",
    )  # fmt: skip
    path, refused = tmp_path / "run" / "results.parquet", 0
    sound = path.read_bytes()
    assert read_results(path).equals(result.table)
    places = range(0, 8 * len(sound), 301)  # all bits of a byte, in turns
    for place in places:
        flipped = bytearray(sound)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert read_results(path).equals(result.table), place
        except CheckpointError:
            refused += 1
    assert refused > len(places) / 4, "statistics, which nobody reads, are most of such a small file"


@pytest.mark.parametrize("halved", [False, True])
def test_the_steps_of_a_run_are_those_of_networks_that_still_run(halved: bool) -> None:
    """Three of four stop after the first of ten rounds; halving says nothing, as later rungs stop further ones."""
    data = gpubp.Dataset(torch.ones(8, 1), torch.zeros(8, 1))
    population = gpubp.Population.create(gpubp.NetworkSpec((1, 2, 1)), 4)
    targets = torch.tensor([1e9, 1e9, 1e9, -1.0])
    config = gpubp.TrainConfig(epochs=10, evaluate_every=1, target_loss=None if halved else targets)
    told, search = list[Progress](), SuccessiveHalving(factor=4) if halved else None
    seen = hears(progress=told.append)
    result = gpubp.train(population, data, config, reporters=[seen], search=search, engine="eager")
    assert result.network_steps == 4 + 9
    known = [each.steps for each in told]
    assert {*known} == ({0} if halved else {40, 13})
    assert known == sorted(known, reverse=True)
