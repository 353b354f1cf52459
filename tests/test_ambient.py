"""What is set around a call, autocast, default device and type, modes, flags, changes no bit of what it gives, nor its
type and place; and is set as before when it returns."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

import gpubp
import gpubp.sklearn
from gpubp.system.ambient import neutral

from .helpers import compiled, same_bits  # noqa: F401

SPEC = gpubp.NetworkSpec((4, 16, 3), "tanh", loss="cross_entropy")
Found = dict[str, Any]
IRIS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]


@contextmanager
def default(get: Callable[[], Any], put: Callable[[Any], Any], value: Any) -> Iterator[None]:
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def default_type(dtype: torch.dtype) -> AbstractContextManager[None]:
    return default(torch.get_default_dtype, torch.set_default_dtype, dtype)


def rounded(owner: Any, kind: str) -> AbstractContextManager[None]:
    return default(lambda: owner.fp32_precision, partial(setattr, owner, "fp32_precision"), kind)


AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "set_default_device": lambda: default(lambda: None, torch.set_default_device, "meta"),
    "float64 by default": lambda: default_type(torch.float64),
    "bfloat16 by default": lambda: default_type(torch.bfloat16),
    "deterministic algorithms": lambda: default(
        torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, "error"
    ),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "products in bfloat16": lambda: default(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "flushed denormals": lambda: default(lambda: False, torch.set_flush_denormal, True),
}


def seen() -> tuple[Any, ...]:
    """What is set."""
    return (
        torch.is_autocast_enabled("cpu"), torch.empty(0).device, torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(), torch.is_inference_mode_enabled(), torch.is_grad_enabled(),
        sys.float_info.min / 2 == 0, torch.backends.mkldnn.matmul.fp32_precision,
    )  # fmt: skip


class Numbers(NamedTuple):
    """Inputs (40, 4), below the normal numbers too, their classes and weights, made where nothing is set."""

    inputs: Tensor
    tiny: Tensor
    classes: Tensor
    weight: Tensor

    def population(self) -> gpubp.Population:
        return gpubp.Population.create(SPEC, 5)

    def ragged(self) -> gpubp.Dataset:
        rows = [self.weight.roll(7 * n) > 0.6 for n in range(5)]
        return gpubp.Dataset(self.inputs, self.classes, rows, self.weight)


def numbers() -> Numbers:
    inputs = torch.rand(40, 4, generator=torch.Generator().manual_seed(1))
    return Numbers(inputs, inputs * 2.0**-130, (inputs.sum(1) * 1.4).long().clamp(max=2), inputs[:, 0] + 0.1)


def trained(given: Numbers, engine: str, **more: Any) -> Found:
    settings = {"lr": [0.01, 0.02, 0.03, 0.04, 0.05], "batch_size": 8, "epochs": [1, 2, 3, 2, 1]}
    held_out = gpubp.Dataset(given.inputs.numpy(), given.classes.tolist())
    config = gpubp.TrainConfig(**settings | more)
    result = gpubp.train(given.population(), given.ragged(), config, held_out, engine=engine)
    return {
        "params": result.population.params, "loss": result.loss, "metric": result.metric, "order": result.ranking(),
        "held out": result.validation_loss, "history": [each["loss"] for each in result.history],
    }  # fmt: skip


def in_place(given: Numbers, _: Path) -> Found:
    networks = given.population()
    gpubp.train(networks, given.ragged(), gpubp.TrainConfig(steps=3), inplace=True, engine="eager")
    return {"params": networks.params}


def modules(given: Numbers, _: Path) -> Found:
    module = nn.Sequential(nn.Linear(4, 3, device="cpu", dtype=torch.float32), nn.ReLU())
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(given.inputs.flatten()[: each.numel()].view_as(each))
    back = gpubp.Population.from_modules([module] * 3).network(1)
    return {name: each.detach() for name, each in back.named_parameters()}


def estimators(given: Numbers, _: Path) -> Found:
    samples = given.inputs.numpy(), given.classes.numpy()
    settings = {"hidden_layer_sizes": (6,), "batch_size": 8, "max_iter": 2, "random_state": 1}
    ours = gpubp.sklearn.MLPClassifier(early_stopping=True, **settings)
    with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):
        fitted = ours.fit(*samples, sample_weight=given.weight.numpy())
    more = gpubp.sklearn.MLPClassifier(**settings).partial_fit(*samples, classes=[0, 1, 2])
    shares = [each.predict_proba(samples[0]).tolist() for each in (fitted, more)]
    return {"shares": shares, "params": fitted.model_.population.params}


def of_a_run(folder: Path) -> Found:
    data = gpubp.load_data("iris")
    spec = gpubp.NetworkSpec((data.widths_in, 6, data.widths_out), loss=data.loss)
    networks = gpubp.Population.create(spec, 3, init="orthogonal")
    config = gpubp.TrainConfig(epochs=2, schedule="plateau", batch_size=32)
    gpubp.train(networks, data.training, config, data.validation, run_dir=folder, engine="eager")
    result = gpubp.resume(folder, data.training, data.validation, epochs=4)
    model = gpubp.load(folder)
    return {
        "params": result.population.params, "labels": model.predict(IRIS, networks=2).tolist(),
        "shares": model.predict_proba(IRIS).tolist(), "inputs": model.inputs(IRIS),
        "each": model.predict_proba(IRIS, "all", each=True).tolist(), "order": model.ranking(),
        **{name: each.detach() for name, each in model.network(0).state_dict().items()},
    }  # fmt: skip


CALLS: dict[str, Callable[[Numbers, Path], Found]] = {
    "create": lambda given, _: {
        init: gpubp.Population.create(SPEC, ids=[7, 3], init=init).params for init in gpubp.INITIALISERS
    },
    "populations": lambda given, _: {
        "taken": given.population().take([3, 0]).params, "sliced": given.population().take(slice(2)).params,
        "copied": given.population().copy_rows([0], [4]).params,
        "wider": given.population().to(dtype=torch.float64).params,
        "more": given.population().concatenate(gpubp.Population.create(SPEC, ids=[9])).params,
    },
    "data": lambda given, _: {
        **vars(given.ragged()), "whole": gpubp.Dataset([[1, 2], [3, 300]], [[True], [False]]).inputs
    },
    "divided": lambda given, _: {
        f"{name} {side}": part.rows
        for whole in (gpubp.Dataset(given.inputs, given.classes),)
        for name, parts in {
            "folds": whole.folds(3), "groups": whole.folds(3, groups=[n // 2 for n in range(40)]),
            "bootstrap": whole.bootstrap(3), "split": whole.by([n % 4 for n in range(40)]).split(0.2),
        }.items()
        for side, part in enumerate(parts)
    },
    "predict": lambda given, _: {"outs": given.population().predict(given.inputs)},
    "forward": lambda given, _: {"outs": gpubp.backprop.forward(SPEC, given.population().params, given.inputs)},
    "gradients": lambda given, _: dict(
        zip(("loss", "grad"), gpubp.backprop.gradients(SPEC, given.population().params, given.inputs, given.classes))
    ),
    "tiny": lambda given, _: {"outs": given.population().predict(given.tiny)},
    "eager": lambda given, _: trained(given, "eager"),
    "sgd": lambda given, _: trained(given, "eager", optimizer="sgd", dropout=0.1, schedule="cosine", warmup=2),
    "compiled": lambda given, _: trained(given, "cpu"),
    "in place": in_place,
    "modules": modules,
    "estimators": estimators,
    "a run": lambda given, folder: of_a_run(folder / "run"),
}  # fmt: skip


def differs(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return not (same_bits(one, other) and one.device == other.device) or other.is_inference() or other.requires_grad
    return bool(one != other)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Found]:
    return cache(lambda call: CALLS[call](numbers(), tmp_path_factory.mktemp("plain")))


QUICK = {"autocast", "default device", "float64 by default", "inference_mode"}  # for every call


@pytest.mark.parametrize(("call", "name"), [
    pytest.param(call, name, marks=[pytest.mark.slow] * (name not in QUICK and call != "gradients"))
    for call in CALLS for name in AMBIENT
])  # fmt: skip
def test_nothing_that_is_set_around_a_call_changes_it(
    call: str, name: str, expected: Callable[[str], Found], tmp_path: Path
) -> None:
    given, plain = numbers(), expected(call)
    with AMBIENT[name]():
        before = seen()
        found = CALLS[call](given, tmp_path)
        assert seen() == before
    assert [key for key, value in plain.items() if differs(value, found[key])] == []


def test_products_are_whole_until_the_last_of_several_calls_returns() -> None:
    products, every = torch.backends.mkldnn.matmul, torch.backends
    with rounded(products, "none"), rounded(every, "bf16"):
        first, second = neutral(), neutral()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert products.fp32_precision == "ieee"
        second.__exit__(None, None, None)
        assert products.fp32_precision == "bf16"
        every.fp32_precision = "ieee"
        assert products.fp32_precision == "ieee", "it follows what is set for more than products, as before"


def test_a_default_device_that_was_taken_back_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.9 cannot tell it then."""

    def told() -> torch.device:
        raise AttributeError("'NoneType' object has no attribute 'device'")

    monkeypatch.setattr(torch, "get_default_device", told)
    with neutral():
        assert torch.empty(0).device.type == "cpu"
