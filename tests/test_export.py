"""Exported files predict what the networks predict, in the libraries that they are for, without gpubp; and what a
format cannot hold is refused by its name."""

import ast
import json
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import gpubp
from gpubp.errors import ConfigError, SpecError
from gpubp.export.formats import FORMATS
from gpubp.export.numpy import FUNCTIONS
from gpubp.results.model import Model

from .exported import Case, case
from .helpers import population, same_bits
from .tolerances import DOUBT, EXPORTED

FEW, MANY = (*range(30), 51), range(60)  # cases; the quick ones have each loss three times, and folds in one file
ANSWERS = ("predict", "predict_proba", "std", "entropy", "mutual_information")
ISOLATED = """
import sys
sys.modules.update(dict.fromkeys(("torch", "gpubp", "sklearn", "onnx")))  # not importable
import json, pathlib, numpy as np, importlib
sys.path.insert(0, sys.argv[1])
said = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    name = path.stem
    samples, module = json.loads(path.read_text()), importlib.import_module(name)
    functions = [each for each in sys.argv[2:] if hasattr(module, each)]
    said[name] = {each: getattr(module, each)(samples).tolist() for each in functions}
print(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Unknown texts and far numbers are told; here they are meant."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        yield


def dtype_of(model: Model) -> torch.dtype:
    return model.populations.each[0].params.dtype


def expected(each: Case) -> dict[str, Any]:
    """What the model says of the exported networks together."""
    model, rows, samples = each
    together = model.ensemble(rows=rows)
    found = {"predict": model.predict(samples, rows)}
    if model.classes and gpubp.LOSSES[model.populations.each[0].spec.loss].takes == "logit":
        found["predict_proba"] = model.predict_proba(samples, rows)
    if len(rows) > 1:
        found["std"] = together.std(samples)
        if gpubp.LOSSES[together.spec.loss].takes == "logit":
            found |= {"entropy": together.entropy(samples), "mutual_information": together.mutual_information(samples)}
    return found


def agree(found: Any, wanted: Any, dtype: torch.dtype, scale: float | None = None) -> None:
    """Equal labels; numbers to the promised digits of the largest."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if wanted.dtype.kind in "Ubi":
        assert found.tolist() == wanted.tolist()
        return
    assert found.shape == wanted.shape
    largest = np.abs(wanted).max() if scale is None else scale
    assert np.abs(found - wanted).max() <= EXPORTED[dtype] * largest


def all_agree(found: dict[str, Any], each: Case, dtype: torch.dtype | None = None) -> None:
    wanted = expected(each)
    assert found.keys() == wanted.keys()
    numbers = wanted.get("predict_proba", wanted["predict"])
    scale = float(np.abs(numbers).max()) if numbers.dtype.kind == "f" else 1.0
    dtype = dtype or dtype_of(each.model)
    for name, values in wanted.items():
        if name in ("entropy", "mutual_information"):
            np.testing.assert_allclose(found[name], values, **DOUBT[dtype], err_msg=name)
        else:
            agree(found[name], values, dtype, scale)


def run_onnx(path: Path, each: Case) -> dict[str, Any]:
    """What ONNX Runtime says, by our names."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    preparation, samples = each.model.preparation, each.samples
    given = {"inputs": np.asarray(samples)}
    if preparation is not None:
        kinds = [column.categories is None for column in preparation.columns]
        parts = {
            "numbers": [[x for x, number in zip(row, kinds) if number] for row in samples],
            "texts": [["" if x is None else x for x, number in zip(row, kinds) if not number] for row in samples],
        }
        types = {"numbers": np.float64, "texts": object}
        given = {name: np.array(rows, types[name]) for name, rows in parts.items() if rows[0]}
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, given)))
    predicted = found.pop("label", None)
    found["predict"] = found.pop("prediction", predicted)
    if each.model.classes:
        found.pop("margin", None)
    return {{"probabilities": "predict_proba"}.get(name, name): values for name, values in found.items()}


@pytest.mark.parametrize("seed", [*FEW, *(pytest.param(n, marks=pytest.mark.slow) for n in MANY if n not in FEW)])
def test_onnx_runtime_says_what_the_networks_say(seed: int, tmp_path: Path) -> None:
    each = case(seed)
    path = each.model.export(tmp_path / "networks.onnx", each.rows)
    gelu = any("gelu" in part.spec.activations for part in each.model.populations.each)  # erf is float32 there
    all_agree(run_onnx(path, each), each, torch.float32 if gelu else None)


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_python_file_with_numpy_alone_says_what_the_networks_say(seeds: Iterable[int], tmp_path: Path) -> None:
    """One process without torch runs all."""
    cases = {f"networks_{seed}": case(seed) for seed in seeds}
    for name, each in cases.items():
        path = each.model.export(tmp_path / f"{name}.py", each.rows)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert imports <= {"numpy", "math", "base64"}
        (tmp_path / f"{name}.json").write_text(json.dumps(plain(each.samples)))
    command = [sys.executable, "-I", "-W", "error", "-c", ISOLATED, str(tmp_path), *ANSWERS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.keys() == cases.keys()
    for name, each in cases.items():
        all_agree(said[name], each)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_certain_networks_have_no_entropy_and_those_that_contradict_each_other_all_of_it(
    loss: str, tmp_path: Path
) -> None:
    """Probabilities of 0, whose logarithm is infinite."""
    networks = population(gpubp.NetworkSpec((1, 2), loss=loss, bias="none"), 2)
    networks.params[:] = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    each = Case(Model(networks), [0, 1], torch.tensor([[0.0], [1.0]]).double())
    module = run_path(str(each.model.export(tmp_path / "networks.py", [0, 1])))
    said = run_onnx(each.model.export(tmp_path / "networks.onnx", [0, 1]), each)
    for found in (said, {name: module[name](each.samples) for name in ANSWERS[-2:]}):
        np.testing.assert_allclose(found["entropy"], np.full_like(found["entropy"], np.log(2)))
        assert not found["mutual_information"][0].any()
        np.testing.assert_allclose(found["mutual_information"][1], found["entropy"][1])
    alike = Case(each.model, [0, 0], each.samples)
    certain = run_onnx(each.model.export(tmp_path / "certain.onnx", alike.rows), alike)["entropy"][1]
    assert np.atleast_1d(certain).tolist() == [0.0] * certain.size
    assert not np.signbit(certain).any()


@pytest.mark.parametrize("seed", FEW[::3])
def test_a_safetensors_file_is_the_model_again(seed: int, tmp_path: Path) -> None:
    each = case(seed)
    back = gpubp.load(each.model.export(tmp_path / "networks.safetensors", each.rows))
    everyone = [*range(len(each.rows))]
    assert back.predict(each.samples, everyone).tolist() == each.model.predict(each.samples, each.rows).tolist()
    for row, before in enumerate(each.rows):
        ((old, its),), ((new, local),) = (
            [(part.population, part.local) for part in model.populations.parts(torch.tensor([at]))]
            for model, at in ((each.model, before), (back, row))
        )
        assert same_bits(new.params[local], old.params[its])
        assert (new.spec, new.seed, new.ids[local]) == (old.spec, old.seed, old.ids[its])


@pytest.mark.parametrize("seed", FEW[::3])
def test_a_state_dict_is_that_of_the_modules(seed: int, tmp_path: Path) -> None:
    model, rows, _ = case(seed)
    path = model.export(tmp_path / "networks.pt", rows)
    modules = [model.network(row) for row in rows]
    whole = nn.ModuleList(modules) if len(rows) > 1 else modules[0]
    before = {name: each.clone() for name, each in whole.state_dict().items()}
    for each in whole.state_dict().values():
        each.zero_()
    whole.load_state_dict(torch.load(path, weights_only=True))
    assert before.keys() == whole.state_dict().keys()
    assert all(torch.equal(each, before[name]) or bool(each.isnan().any()) for name, each in whole.state_dict().items())


def doubled(net: torch.Tensor) -> torch.Tensor:
    return 2 * net


OWN = gpubp.Activation(doubled, lambda net, out: 2 + 0 * net)


@pytest.mark.parametrize("to", [each for each in FORMATS if each != "safetensors"])
def test_functions_of_ones_own_are_refused_by_name(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"activation 'doubled' has no .*add one: gpubp"):
        Model(population(gpubp.NetworkSpec((3, 2, 1), OWN), 1)).export(tmp_path / "networks", [0], to)
    monkeypatch.setitem(gpubp.LOSSES, "own", gpubp.LOSSES["mean_squared_error"]._replace(inverse_link=doubled))
    if to != "torch":
        with pytest.raises(SpecError, match="loss 'own' predicts by doubled, a function of its own"):
            Model(population(gpubp.NetworkSpec((3, 2, 1), loss="own"), 1)).export(tmp_path / "networks", [0], to)
    assert list(tmp_path.iterdir()) == []


def test_a_row_for_a_custom_activation_exports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of safetensors holds its name alone, and load() takes the rule from the table."""
    monkeypatch.setitem(gpubp.ACTIVATIONS, "doubled", OWN)
    spec = gpubp.NetworkSpec((3, 2, 1), "doubled")
    each = Case(Model(population(spec, 2)), [1, 0], torch.ones(4, 3).double())
    assert gpubp.load(each.model.export(tmp_path / "networks.safetensors", [0])).spec == spec
    monkeypatch.setitem(FUNCTIONS, "doubled", "return 2 * net")
    graphs = gpubp.export.onnx_graph.FUNCTIONS
    monkeypatch.setitem(graphs, "doubled", lambda graph, net: graph.add("Add", net, net))
    module = run_path(str(each.model.export(tmp_path / "networks.py", [1, 0])))
    all_agree({name: module[name](each.samples) for name in ("predict", "std")}, each)
    all_agree(run_onnx(each.model.export(tmp_path / "networks.onnx", [1, 0]), each), each)


def test_networks_of_several_entities_are_not_one_answer(tmp_path: Path) -> None:
    data = gpubp.load_data("diabetes", per=["sex"], min_samples=8)
    spec = gpubp.NetworkSpec((data.widths_in, 3, 1), "tanh", loss=data.loss)
    networks = population(spec, data.training.networks, torch.float32)
    model = Model(networks, data.preparation)
    samples = [[*range(data.widths_in)]] * 2
    for to in ("onnx", "numpy"):
        with pytest.raises(ConfigError, match="networks 'best': with one model per entity the rows of"):
            model.export(tmp_path / "networks", to=to)
        with pytest.raises(ConfigError, match=r"networks of 2 entities \(.*\): this format answers every sample"):
            model.export(tmp_path / "networks", [0, 1], to)
    with pytest.raises(ConfigError, match="networks of 2 entities"):
        model.estimator([0, 1])
    module = run_path(str(model.export(tmp_path / "one.py", [1])))
    wanted = model.network(1)(torch.tensor(samples)).detach().numpy()[:, 0]
    np.testing.assert_allclose(module["predict"](samples), wanted, rtol=1e-6)
    back = gpubp.load(model.export(tmp_path / "all.safetensors", [1, 0]))
    names = [[*row, sex] for row, sex in zip(samples, data.preparation.entities.values[0])]
    assert back.predict(names, [0, 1]).tolist() == model.predict(names, [0, 1]).tolist()


def test_more_than_an_onnx_file_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(population(gpubp.NetworkSpec((3, 2, 1)), 1))
    monkeypatch.setattr(gpubp.export.onnx, "MOST", 1 << 20)
    with pytest.raises(ConfigError, match="1 network of 3-2-1 are 88 bytes; an ONNX file holds 2 GB"):
        model.export(tmp_path / "networks.onnx", [0])
    assert list(tmp_path.iterdir()) == []
