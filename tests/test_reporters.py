"""What a person sees while a population trains."""

import io

import pytest
import torch
from rich.console import Console

import gpubp
from gpubp.reporters import Progress, Start, console
from gpubp.reporters.console import ConsoleReporter


def shown(terminal: bool) -> str:
    """Everything that a run of 50 networks writes."""
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = gpubp.Dataset(inputs, (inputs.sum(1) > 0).long())
    population = gpubp.Population.create(gpubp.NetworkSpec((3, 4, 2), loss="cross_entropy"), 50)
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=80, soft_wrap=True)
    config = gpubp.TrainConfig(epochs=30, batch_size=8)
    gpubp.train(population, data, config, validation=data, reporters=[ConsoleReporter(screen)])
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


def test_the_time_left_knows_nothing_of_the_first_call_which_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    screen = Console(file=io.StringIO(), force_terminal=False, width=80, soft_wrap=True)
    reporter = ConsoleReporter(screen)
    reporter.start(Start(networks=1, parameters=3, steps=1000, done=0, step=0, engine_reason="", run_dir=None))
    for now, done in ((30.0, 100), (33.0, 200), (36.0, 400)):
        clock[0] = now
        reporter.progress(Progress(done, 1.0, 1))
    lines = screen.file.getvalue().splitlines()[1:]
    assert len(lines) == 1, "nothing before the first call is over and five seconds have passed"
    assert " 40 % " in lines[0]
    assert " 12 s left " in lines[0]
