"""What a person sees while a population trains."""

import io

import torch
from rich.console import Console

import gpubp
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
