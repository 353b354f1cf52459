"""gpubp train --search, as a person types it."""

import json
from pathlib import Path

import pytest
import yaml

from .commands import Capture, columns, error, here, run, trained  # noqa: F401

DATA = "--data wine --networks 18 --lr 1e-4..1e-1:log --run-dir made"


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        ("--search halving --epochs 12 --budget 3 --factor 2", [9, 4, 4]),
        ("--search halving --epochs 12 --budget 4 --evaluate-every 2", [18, 6, 6, 6, 6]),
        pytest.param("--search halving --steps 1000 --patience 30", [6] * 2 + [2] * 7, marks=pytest.mark.slow),
        ("--search halving --epochs 20 --evaluate-every 2", [6] * 2 + [2] * 7),
        ("--search halving --epochs 9 --widths 13,3;13,4,3 --optimizer adam,sgd", [6] * 2 + [2] * 6),
    ],
)
def test_halving_goes_on_with_the_best(flags: str, left: list[int], capsys: Capture) -> None:
    told = trained(f"{DATA} {flags}", capsys)
    history = [json.loads(each) for each in Path("made/history.jsonl").read_text().splitlines()]
    assert [each["statuses"]["running"] for each in history[:-1]] == left
    assert told["statuses"]["finished"] == left[-1]
    assert {*columns("made")["rung"]} == {*range(len({*left} - {18}) + 1)}
    assert "successive halving: 18 networks, of which these go on:" in " ".join(told["notes"])
    shown = run("inspect made", capsys)
    assert f"18 networks: {left[-1]} finished, {18 - left[-1]} stopped" in shown
    assert "rung" in shown


def test_networks_wait_for_slots_if_halving_is_asynchronous(capsys: Capture) -> None:
    told = trained(f"{DATA} --epochs 9 --search asha --slots 6", capsys)
    assert told["notes"][0] == "asha: 18 networks, of which one in 3 goes on after 1, 3 of 9 epochs"
    assert told["statuses"]["finished"] + told["statuses"]["stopped"] == 18
    arrivals = [json.loads(each) for each in Path("made/arrivals.jsonl").read_text().splitlines()]
    assert sorted(n for each in arrivals for n, rung in zip(each["network"], each["rung"]) if not rung) == [*range(18)]
    again = f"train {DATA.replace('made', 'other')} --epochs 9 --search halving --slots 6"
    assert "give as many slots, or fewer networks; or search=AsynchronousHalving() (--search asha)" in error(
        again, capsys
    )


def test_hyperband_and_folds(capsys: Capture) -> None:
    told = trained(f"{DATA} --epochs 9 --search hyperband --folds 3", capsys)
    found = columns("made")
    assert len(told["notes"]) == 3
    assert [found["bracket"][3 * n : 3 * n + 3] for n in range(18)] == [[each] * 3 for each in found["bracket"][::3]]
    assert [found["bracket"].count(each) for each in (2, 1, 0)] == [30, 15, 9]
    assert "bracket" in run("inspect made", capsys)


def test_pbt_stays_within_the_ranges_and_keeps_its_lineage(capsys: Capture) -> None:
    trained(f"{DATA} --epochs 12 --search pbt --budget 3 --optimizer momentum --momentum 0.5,0.9", capsys)
    lineage = [json.loads(each) for each in Path("made/lineage.jsonl").read_text().splitlines()]
    assert [each["round"] for each in lineage] == [1, 2, 3]
    assert {len(each["network"]) for each in lineage} == {5}
    assert {*columns("made")["momentum"]} <= {0.5, 0.9}
    assert all(1e-4 <= each <= 1e-1 for each in columns("made")["lr"])


@pytest.mark.parametrize(
    ("flags", "every"),
    [
        pytest.param("--steps 5000 --patience 30", 200, marks=pytest.mark.slow),
        ("--steps 100 --evaluate-every 2", 4),
        ("--steps 20 --widths 13,3;13,4,3", 1),
        ("--epochs 8 --evaluate-every 4 --batch-size 36", 4),
    ],
)
def test_pbt_exchanges_when_networks_are_evaluated_if_no_budget_says_when(
    flags: str, every: int, capsys: Capture
) -> None:
    told = trained(f"{DATA} --search pbt --batch-size 4 --networks 6 {flags}", capsys)
    assert f"population based training: every {every} " in " ".join(told["notes"])
    json.loads(run("resume made --json", capsys).splitlines()[-1])


def test_pbt_changes_no_patience_by_itself(capsys: Capture) -> None:
    trained(f"{DATA} --epochs 6 --search pbt --budget 1 --patience 5,20 --min-delta 0..0.001", capsys)
    assert {*columns("made")["patience"]} == {5, 20}
    lineage = [json.loads(each) for each in Path("made/lineage.jsonl").read_text().splitlines()]
    assert {name for each in lineage for name in each["hyper"]} == {"lr"}


def test_a_run_is_repeated_by_its_config_and_resumes_with_its_search(capsys: Capture) -> None:
    trained(f"{DATA} --epochs 9 --search hyperband --seed 4", capsys)
    settings = yaml.safe_load(Path("made/config.yaml").read_text())
    assert (settings["search"], settings["budget"], settings["sampling"]) == ("hyperband", None, "sobol")
    run("train --config made/config.yaml --run-dir again", capsys)
    assert columns("again") == columns("made")
    told = json.loads(run("resume again --json", capsys).splitlines()[-1])
    assert told["network_steps"] == 0
    assert columns("again") == columns("made")


def test_ranges_can_be_drawn_at_random_and_lists_with_them(capsys: Capture) -> None:
    drawn = "--momentum 0.1,0.9 --optimizer momentum --patience 1..4:int --epochs 1"
    ways = {"one": "--sampling random", "again": "--sampling random", "other": "", "seeded": "--seed 1"}
    for name, flags in ways.items():
        trained(f"--data wine --networks 20 --lr 1e-4..1e-1:log {drawn} --run-dir {name} {flags}", capsys)
    one, again, other = columns("one"), columns("again"), columns("other")
    assert one["lr"] == again["lr"] != other["lr"] != columns("seeded")["lr"]
    assert other["momentum"] == [0.1, 0.9] * 10 != one["momentum"]
    assert {*one["momentum"]} == {0.1, 0.9}
    assert {*one["patience"]} == {*other["patience"]} == {1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--search halvin", "search 'halvin' is unknown; did you mean 'halving'?"),
        ("--budget 3", "--budget 3: only with --search halving, hyperband, asha, pbt"),
        ("--factor 3 --search pbt", "--factor 3: only with --search halving, hyperband, asha"),
        (
            "--search halving --budget 2 --evaluate-every 3",
            "halving decides after 2 epochs, and networks are evaluated every 3: a multiple expected, by min_resources "
            "(--budget) or evaluate_every (--evaluate-every)",
        ),
        ("--search pbt --budget 3 --evaluate-every 2", "expected, by every (--budget) or evaluate_every (--evaluate"),
        ("--sampling sobl", "sampling 'sobl' is unknown; did you mean 'sobol'?"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_with_a_line(flags: str, told: str, capsys: Capture) -> None:
    assert told in error(f"train {DATA} --epochs 20 --engine eager {flags}", capsys)
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--networks 3 --lr 0.1,0.01,0.001,0.0001", "4 combinations of --lr for 3 networks, which leave 1 of them out"),
        ("--networks 2 --lr 0.1..1 --hidden relu;tanh", "2 combinations of --hidden for 2 networks; all have one point "
         "of --lr"),
        ("--networks 3 --lr 0.1,0.2 --optimizer sgd,adam", "4 combinations of --lr and --optimizer for 3 networks, wh"),
        ("--networks 1 --lr 0.1..1", ""),
    ],
)  # fmt: skip
def test_a_grid_with_too_few_networks_is_told_of(flags: str, told: str, capsys: Capture) -> None:
    shown = error(f"train --data iris --epochs 1 --engine eager {flags}", capsys, 0)
    assert told in shown
    assert ("combinations" in shown) == bool(told)
