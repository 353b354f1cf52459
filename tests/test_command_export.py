"""gpubp export, of runs of gpubp train: mixed designs, folds, entities and data without a preparation; and what load()
says of files that are not what export() wrote."""

import json
import runpy
from pathlib import Path
from runpy import run_path
from typing import Any

import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gpubp
from gpubp.cli import main
from gpubp.errors import CheckpointError
from gpubp.results.model import Model

from .commands import Capture, error, here, run, trained  # noqa: F401
from .helpers import population

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5], [5.9, 3.0, 4.2, 1.5]]


def test_a_run_goes_from_training_to_files_of_every_format(capsys: Capture) -> None:
    trained("--data iris --networks 6 --steps 20 --run-dir made", capsys)
    model = gpubp.load("made")
    best = int(model.ranking()[0])
    assert run("export made --to numpy", capsys) == f"made/networks.py: 1 of 6 networks, row {best}\n"
    assert run_path("made/networks.py")["predict"](FLOWERS).tolist() == model.predict(FLOWERS).tolist()
    assert run_path("made/networks.py")["ROWS"] == [best]
    rows = ", ".join(map(str, model.ranking()[:3].tolist()))
    assert run("export made --output three.onnx --networks 3", capsys) == f"three.onnx: 3 of 6 networks, rows {rows}\n"
    assert run("export made", capsys) == f"made/networks.safetensors: 1 of 6 networks, row {best}\n"
    assert gpubp.load("made/networks.safetensors").predict(FLOWERS).tolist() == model.predict(FLOWERS).tolist()
    assert Path("three.onnx").read_bytes() == model.export("python.onnx", model.ranking()[:3]).read_bytes()
    about = json.loads(next(each.value for each in onnx.load("three.onnx").metadata_props if each.key == "gpubp"))
    assert (about["classes"], about["rows"]) == ([*model.classes], model.ranking()[:3].tolist())
    run("export made --to torch --rows 5,2", capsys)
    names = torch.load("made/networks.pt", weights_only=True).keys()
    assert {*names} == {*torch.nn.ModuleList([model.network(5), model.network(2)]).state_dict()}
    run("export made --output all.safetensors --networks all", capsys)
    Path("new.csv").write_text("\n".join(",".join(map(str, row)) for row in [
        [f'"{each.name}"' for each in model.preparation.columns], *FLOWERS]))  # fmt: skip
    assert run("predict all.safetensors --data new.csv", capsys) == run("predict made --data new.csv", capsys)
    run("export all.safetensors --to onnx", capsys)
    assert Path("networks.onnx").is_file()
    assert [each.name for each in Path("made").iterdir() if "writing" in each.name] == []


def test_what_cannot_be_exported_is_said_in_one_line(capsys: Capture) -> None:
    trained("--data iris --networks 2 --steps 2 --run-dir made", capsys)
    Path("there.onnx").write_text("mine")
    for flags, what in (
        ("--output there.csv", "file 'there.csv': a name that ends with .onnx (onnx), .py (numpy)"),
        ("--to onx", "to 'onx' is unknown; did you mean 'onnx'?"),
        ("--to sklearn", "gpubp.load(run).estimator() makes one"),
        ("--output there.onnx", "there.onnx exists already; --output with a new file expected"),
        ("--to onnx --rows 1 --networks 2", "--networks and --rows: one of them expected"),
        ("--to onnx --rows 1,x", "--rows '1,x': whole numbers of 0 or more"),
        ("--to onnx --rows 7", "network 7: a row from 0 to 1"),
        ("--to onnx --networks 0", "--networks '0': best, all, or a number"),
        ("--to numpy --output no/where.py", "no/where.py cannot be written: No such file or directory"),
        ("--output x.foo", ".safetensors (safetensors), .pt (torch), or one of these formats by to (--to), expected"),
    ):
        found = error(f"export made {flags}", capsys)
        assert what in found
        assert len(found.splitlines()) == 1
    assert Path("there.onnx").read_text() == "mine"
    assert not [*Path("made").glob("networks*")]


def test_a_file_of_networks_that_is_not_what_was_written_is_refused(tmp_path: Path) -> None:
    data = gpubp.load_data("iris")
    networks = population(gpubp.NetworkSpec((4, 3), loss=data.loss), 3, torch.float32)
    path = Model(networks, data.preparation).export(tmp_path / "good.safetensors", [2, 0])
    with safe_open(path, "pt") as file:
        about, tensors = json.loads(file.metadata()["gpubp"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert gpubp.load(path).populations.count == 2

    def without(name: str) -> dict[str, torch.Tensor]:
        return {key: each for key, each in tensors.items() if key != name}

    spec = about["populations"][0]["spec"]
    changes: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {
        "is not a file of networks": (None, tensors),
        "not a file of networks that": ({**about, "format": "other"}, tensors),
        "has version 2; this gpubp reads version 1": ({**about, "version": 2}, tensors),
        "'version' is missing": ({k: v for k, v in about.items() if k != "version"}, tensors),
        "'0.params' is missing": (about, without("0.params")),
        "'rows' is missing": (about, without("rows")),
        "activation 'evil'": ({**about, "populations": [{"spec": {**spec, "hidden": "evil"}, "seed": 0}]}, tensors),
        r"params \(2, 15\): ": ({**about, "populations": [{"spec": {**spec, "widths": [4, 4]}, "seed": 0}]}, tensors),
        "seed": ({**about, "populations": [{"spec": spec, "seed": -1}]}, tensors),
        "preparation": ({**about, "preparation": {"columns": 3}}, tensors),
        "preparation of ": ({**about, "preparation": None} | {"preparation": about["preparation"] | {
            "columns": about["preparation"]["columns"][:2]}}, tensors),
        r"networks in places \[0, 0\]": (about, tensors | {"0.place": torch.tensor([0, 0])}),
        "networks in places": (about, tensors | {"0.place": torch.tensor([0])}),
        "no whole numbers": (about, tensors | {"position": torch.tensor([0.5, 1])}),
        "no networks are in it": ({**about, "populations": []}, tensors),
        "no networks": (about, {name: each[:0] for name, each in tensors.items()}),
        "are no whole numbers, one": (about, tensors | {"0.place": torch.tensor(0)}),
        "results": (about, tensors | {"results": torch.tensor([1, 2, 3], dtype=torch.uint8)}),
        "ids": (about, tensors | {"0.ids": torch.tensor([1, 2, 3])}),
        "not a file of networks that gpubp": ([], tensors),
    }  # fmt: skip
    for what, (described, content) in changes.items():
        bad = tmp_path / "bad.safetensors"
        save_file(content, bad, {} if described is None else {"gpubp": json.dumps(described)})
        with pytest.raises(CheckpointError, match=what):
            gpubp.load(bad)
    save_file(tensors | {"0.params": tensors["0.params"].fill_(torch.nan)}, bad, {"gpubp": json.dumps(about)})
    with pytest.warns(UserWarning, match="2 of 2 networks have weights that are NaN or infinite, the first in row 0"):
        assert len(gpubp.load(bad)) == 2
    whole = path.read_bytes()
    for cut in (0, 7, 8, 100, len(whole) - 1):
        bad.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"bad.safetensors cannot be read"):
            gpubp.load(bad)


def test_a_python_file_of_any_name_is_read_as_the_command_says(capsys: Capture) -> None:
    trained("--data iris --networks 4 --steps 2 --run-dir made", capsys)
    assert main(["export", "made", "--to", "numpy", "--output", "x.txt"]) == 0
    call, _, _ = capsys.readouterr().err.strip().removeprefix("read it by ").partition(", which needs NumPy")
    assert eval(call, {"runpy": runpy, "samples": [[5.1, 3.5, 1.4, 0.2]]}).shape == (1,)


@pytest.mark.parametrize("rows", ["3", "3,0"])
def test_a_file_of_torch_is_read_as_the_command_says(rows: str, capsys: Capture) -> None:
    trained("--data iris --networks 4 --steps 2 --run-dir made", capsys)
    assert main(f"export made --to torch --rows {rows}".split()) == 0
    call, _, module = capsys.readouterr().err.strip().removeprefix("read it by ").partition(", a state dict of ")
    names: dict[str, Any] = {"torch": torch, "gpubp": gpubp, "RUN": "made", "ROWS": [*map(int, rows.split(","))]}
    names |= {"row": names["ROWS"][0]}
    state, network = eval(call, names), eval(module, names)
    assert str(network.load_state_dict(state)) == "<All keys matched successfully>"
    assert len(state) > 0
