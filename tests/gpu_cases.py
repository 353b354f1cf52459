"""What a GPU is tried on: a case for every row of every table, every feature and every kind of data; without one in
test_fake_cuda.py, on one in test_on_gpu.py."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

import gpubp

from .helpers import LOGITS, generator, samples

COUNT, BATCH, STEPS, SAMPLES = 5, 6, 5, 23
SPEC = gpubp.NetworkSpec((5, 33, 2), "tanh")
CLASSES = gpubp.NetworkSpec((5, 33, 3), "relu", loss="cross_entropy")


class Case(NamedTuple):
    """What is trained, how, and what of the data is each network's own."""

    spec: gpubp.NetworkSpec
    settings: dict[str, Any] = {}
    own: str = ""

    def data(self, dtype: torch.dtype) -> gpubp.Dataset:
        """SAMPLES samples of COUNT networks."""
        inputs, target = samples(self.spec, COUNT, SAMPLES, dtype=dtype)
        if self.own == "inputs":
            return gpubp.Dataset(inputs, target)
        rows = [range(3 + 5 * n) for n in range(COUNT)] if self.own == "rows" else None
        weight = torch.rand(COUNT, SAMPLES, generator=generator(1)) if self.own == "weights" else None
        return gpubp.Dataset(inputs[0], target[0], rows, weight)


FEATURES: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": [0.1, 0.2, 0.3, 0.4, 0.5]},
    "penalties": {"l1": 1e-3, "l2": [0.1, 0.2, 0.3, 0.4, 0.5]},
    "clipping": {"clip_value": 0.1, "clip_norm": [1, 2, 3, 4, 5]},
    "one order": {"shuffle": "shared"},
    "in order": {"shuffle": "none"},
    "ends": {"steps": [5, 1, 3, 3, 2]},
}


def _rows() -> Iterator[tuple[str, Case]]:
    every, plain = tuple(gpubp.ACTIVATIONS), FEATURES["in order"]  # kinds draw samples, which takes longer than a step
    yield "every activation", Case(gpubp.NetworkSpec((5, *[8] * len(every), 2), every), plain)
    for name in every:
        yield name, Case(gpubp.NetworkSpec((5, 33, 7, 2), name, name, "mean_squared_error"), plain)
    for name in gpubp.LOSSES:
        output = "identity" if name in LOGITS else "sigmoid"
        yield name, Case(gpubp.NetworkSpec((5, 8, 3), "tanh", output, name), plain)
    for name, rule in gpubp.OPTIMIZERS.items():
        extra = {"eps": 1e-3} if "eps" in rule.defaults else {}  # or a gradient's last bit decides a step
        for order in ("simultaneous", "layerwise"):
            settings = {"optimizer": name, "weight_decay": 0.1, "update_order": order, **plain, **extra}
            yield f"{name}, {order}", Case(SPEC, settings)
    for name in gpubp.SCHEDULES:
        yield f"schedule {name}", Case(SPEC, {"schedule": name, "warmup": [0, 2, 3, 1, 0], **plain})


def _kinds() -> Iterator[tuple[str, Case]]:
    for bias in ("neuron", "layer", "none"):
        for trained in (True, False):
            spec = gpubp.NetworkSpec((5, 33, 2), "tanh", bias=bias, train_bias=trained)
            yield f"bias {bias}, {'trained' if trained else 'frozen'}", Case(spec, FEATURES["in order"])
    for name, settings in FEATURES.items():
        yield name, Case(SPEC, settings)
    yield "class weights", Case(CLASSES, {"class_weight": [1, 2, 3.0], "label_smoothing": 0.1})
    for own in ("inputs", "rows", "weights"):
        yield f"own {own}", Case(CLASSES, {}, own)


KINDS = dict(_kinds())
CASES = dict(_rows()) | KINDS
