"""flags.py and cli.py: what each flag takes, on the command line and in a file; everything else is refused in one line
that says what came and what is allowed."""

from pathlib import Path
from typing import Any

import pytest

from gpubp.cli import main, parser
from gpubp.commands import train
from gpubp.system.flags import COUNT, COUNTS, INDEX, LENGTHS, NUMBER, NUMBERS, TEXT, TRUTH, Kind, RefusedError

from .commands import Capture, here, refused  # noqa: F401

FLAGS = {action.option_strings[0]: action.type for action in train.parser()._actions if isinstance(action.type, Kind)}


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (COUNT, "1000", 1000), (COUNT, "1e3", 1000), (COUNT, "1.5e1", 15), (COUNT, "2.0", 2), (COUNT, 7, 7),
        (COUNT, 1e3, 1000), (COUNT, "9223372036854775807", 2**63 - 1), (INDEX, "0", 0), (INDEX, 0, 0),
        (COUNTS, "8", 8), (COUNTS, "8,1e3", "8,1000"), (COUNTS, [8, 16], "8,16"),
        (LENGTHS, "8", 8), (LENGTHS, "8,1e3", "8,1000"), (LENGTHS, "8..64:log", "8..64:log"),
        (NUMBER, "0.25", 0.25), (NUMBER, 0, 0.0), (NUMBERS, "1e-3", 1e-3), (NUMBERS, 2, 2.0),
        (NUMBERS, "1e-4..1e-1:log", "1e-4..1e-1:log"), (NUMBERS, [0.1, 0.01], "0.1,0.01"), (TEXT, "tanh", "tanh"),
        (TEXT, 16, "16"), (TEXT, [64, 32, 10], "64,32,10"), (TEXT, "null", "null"), (TRUTH, "true", True),
        (TRUTH, "False", False), (TRUTH, True, True), (COUNT.or_null(), None, None), (TEXT.or_null(), "null", None),
    ],
)  # fmt: skip
def test_a_flag_accepts_what_its_kind_allows(kind: Kind, given: Any, value: Any) -> None:
    assert (kind(given), type(kind(given))) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *((COUNT, given) for given in ("ten", "", "0", "-1", "2.5", "nan", "inf", "1e19", "1e999999999", "1,2", None)),
        *((COUNT, given) for given in ("1_0", "\uff11", "\u0663", "0x3", "1\n", "1e", ".")),
        (COUNT, True), (COUNTS, "8,"), (COUNTS, "8,0"), (COUNTS, "8;9"), (COUNTS, None),
        (LENGTHS, "8,0"), (LENGTHS, "2.5"),
        *((INDEX, given) for given in ("-1", "0.5", "one", False)),
        *((NUMBER, given) for given in ("half", "nan", "inf", "-0.1", "1e400", "", True, {"a": 1}, "1_0", "\uff11")),
        *((NUMBERS, given) for given in ("", True, None, {}, b"1")),
        *((TEXT, given) for given in ("", None, True, {"a": 1}, "a\0b")),
        *((TRUTH, given) for given in ("maybe", "", 1, None, "yes,no")),
    ],
)  # fmt: skip
def test_a_flag_refuses_what_its_kind_does_not_allow(kind: Kind, given: Any) -> None:
    with pytest.raises(RefusedError) as error:
        kind(given)
    shown = {"": "''", None: "null"}.get(given, str(given)) if not isinstance(given, dict) else str(given)
    assert str(error.value) == f"{shown}: {kind.expected} expected"


def test_every_flag_of_train_refuses_a_value_in_one_sentence(capsys: Capture) -> None:
    assert len(FLAGS) > 60
    wrong = {"COUNT": "ten", "COUNTS": "8,ten", "LENGTHS": "8,ten", "INDEX": "-1", "NUMBER": "half", "NUMBERS": "",
             "TEXT": "", "true|false": "maybe"}  # fmt: skip
    for flag, kind in FLAGS.items():
        value, said = wrong[kind.name], f"{kind.expected} expected"
        assert refused(["train", f"{flag}={value}"], capsys, 2) == f"{flag} {value or repr('')}: {said}"


def test_a_file_of_one_call_says_nothing_to_the_next(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("theirs.yaml").write_text("cluster: ray://somebodys:1\n")
    Path("mine.yaml").write_text("networks: 2\n")
    monkeypatch.setattr(train, "run", lambda settings: 0)
    assert "a file alone does not choose one" in refused("train --config theirs.yaml", capsys, 2)
    assert main(["train", "--config", "mine.yaml"]) == 0


def test_every_count_may_be_written_with_an_exponent() -> None:
    counts = [flag for flag, kind in FLAGS.items() if kind.name in ("COUNT", "COUNTS", "LENGTHS")]
    assert {"--networks", "--batch-size", "--epochs", "--steps", "--evaluate-every"} <= set(counts)
    for flag in counts:
        settings = parser().parse_args(["train", flag, "1e3"]).train
        assert settings[flag.strip("-").replace("-", "_")] == 1000


def test_a_file_of_settings_is_refused_in_the_same_sentence_and_null_is_as_if_not_given(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path("settings.yaml")
    for text, expected in (
        ("networks: ten", "networks ten: a whole number of 1 or more expected"),
        ("optimiser: adam", "--config: the setting 'optimiser' is unknown; did you mean 'optimizer'?"),
        ("train_bias: 2", "train_bias 2: true or false expected"),
        ("widths: {a: 1}", "widths {'a': 1}: a text expected"),
        ("- 1", "settings.yaml: settings by name expected, such as networks: 100"),
        ("", "settings.yaml: settings by name expected, such as networks: 100"),
    ):
        file.write_text(text)
        assert refused("train --config settings.yaml", capsys, 2) == expected
    assert refused("train --config none.yaml", capsys, 2).endswith("a readable file of settings expected")
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(train, "run", lambda settings: found.append(settings) or 0)
    file.write_text("hidden: null\nseed: null\nepochs: null\nwidths: [64, 32, 10]\nlr: [0.1, 0.01]\ntrain_bias: null\n")
    assert main(["train", "--config", "settings.yaml"]) == 0
    (settings,) = found
    assert [settings[name] for name in ("hidden", "seed", "epochs", "widths", "lr", "train_bias")] == [
        "relu", 0, None, "64,32,10", "0.1,0.01", True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("trian", "command 'trian' is unknown; did you mean 'train'?; allowed: "),
        ("", "a command expected: train, resume, "),
        ("train --netw 3", "unrecognized arguments: --netw 3; did you mean '--networks'?"),
        ("train --hidden-layer-sizes 3", "unrecognized arguments: --hidden-layer-sizes 3; did you mean '--widths'?"),
        ("explain --netw 3", "unrecognized arguments: --netw; did you mean '--network'?"),
        ("predict made --keeps id --data a.csv", "unrecognized arguments: --keeps id; did you mean '--keep'?"),
        ("predict made", "--data expected; --help has all"),
        ("predict", "RUN and --data expected; --help has all"),
        ("inspect", "RUN expected; --help has all"),
        ("train --networks", "--networks expected one argument"),
        ("inspect made --top 0", "--top 0: a whole number of 1 or more expected"),
        ("explain --network 1.5", "--network 1.5: a whole number of 0 or more expected"),
    ],
)
def test_what_is_not_a_command_or_a_flag_is_named(arguments: str, expected: str, capsys: Capture) -> None:
    assert refused(arguments, capsys, 2).startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("resume made --lr 0.1", "--lr 0.1; --lr is a flag of gpubp train; a run keeps its settings"),
        ("inspect made --rows 3", "--rows 3; --rows is a flag of gpubp predict, export"),
        ("resume made --qqq 0.1", "--qqq 0.1"),
        ("inspect made --run-dir x", "--run-dir x; --run-dir is a flag of gpubp train"),
    ],
)
def test_a_flag_of_other_commands_says_so_and_one_that_is_like_none_is_not_likened(
    arguments: str, expected: str, capsys: Capture
) -> None:
    assert refused(arguments, capsys, 2) == f"unrecognized arguments: {expected}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--networks 1e12 --lr 1..2", "1,000,000,000,000 networks: their design needs 100 TB; "),
        ("--data tutorial --networks 1e13", "10,000,000,000,000 networks of 2-2-2 with sgd need "),
        ("--epochs 9e18", "epochs 9000000000000000000: a whole number from 1 to 1,000,000,000,000 expected"),
        ("--steps 1e13", "steps 10000000000000: a whole number from 1 to 1,000,000,000,000 expected"),
        (
            "--evaluate-every 9e18",
            "evaluate_every 9000000000000000000: a whole number from 1 to 1,000,000,000,000 expected",
        ),
        (f"--data {'a' * 300}", f"data '{'a' * 79}...{'a' * 39}' is unknown; "),
        (f"--data {'a' * 300}.csv", ".csv: File name too long"),
        (f"--run-dir {'a' * 300}", f"run directory {'a' * 80}...{'a' * 40} cannot be made: File name too long"),
    ],
    ids=lambda text: text[:20],
)
def test_what_nothing_can_train_or_read_is_refused_in_one_line(arguments: str, expected: str, capsys: Capture) -> None:
    usual = ["--data", "xor", "--device", "cpu", "--engine", "eager", "--tensorboard", "false"]
    assert expected in refused(["train", *usual, *arguments.split()], capsys)
    assert not list(Path().iterdir())
