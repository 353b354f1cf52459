"""Matt Mazur's "A Step by Step Backpropagation Example" as data: its network, its sample, its printed figures.

`compare` computes every figure in both update orders (TrainConfig.update_order) and says which one gives the printed
digits. The figures cannot all come from one program: the error after one round and the last outputs are layerwise, the
last error is simultaneous and read before the last update, and one product has a rounded factor.
Results are in this file only as the strings that the tutorial prints.
"""

import itertools
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

import torch
from rich.table import Table

from .backprop import forward, gradients
from .engines import choose
from .explaining.steps import explain
from .maths.spec import NetworkSpec
from .population import Population
from .samples.data import Dataset
from .settings.config import ORDERS, TrainConfig
from .state import TrainState

SPEC = NetworkSpec(
    (2, 2, 2), hidden="sigmoid", output="sigmoid", loss="half_squared_error", bias="layer", train_bias=False
)
ROUNDS = 10_000

PRINTED = {
    "net_h1": "0.3775",
    "out_h1": "0.593269992",
    "out_h2": "0.596884378",
    "net_o1": "1.105905967",
    "out_o1": "0.75136507",
    "out_o2": "0.772928465",
    "E_o1": "0.274811083",
    "E_o2": "0.023560026",
    "E_total": "0.298371109",
    "dE_total/dout_o1": "0.74136507",
    "dout_o1/dnet_o1": "0.186815602",
    "dnet_o1/dw5": "0.593269992",
    "dE_total/dw5": "0.082167041",
    "w5+": "0.35891648",
    "w6+": "0.408666186",
    "w7+": "0.511301270",
    "w8+": "0.561370121",
    "dE_o2/dout_h1": "-0.019049119",
    "dE_total/dout_h1": "0.036350306",
    "dout_h1/dnet_h1": "0.241300709",
    "dE_total/dw1": "0.000438568",
    "w1+": "0.149780716",
    "w2+": "0.19956143",
    "w3+": "0.24975114",
    "w4+": "0.29950229",
    "E after 1 round": "0.291027924",
    "E after 10,000 rounds": "0.0000351085",
    "out_o1 after 10,000 rounds": "0.015912196",
    "out_o2 after 10,000 rounds": "0.984065734",
}

ROUNDED = "dE_o2/dout_h1, dE_o2/dnet_o2 rounded"
ERRATA = {ROUNDED: "dE_o2/dout_h1", "E after 9,999 rounds": "E after 10,000 rounds"}  # ours: the figure printed for it


class Figure(NamedTuple):
    """A figure as printed and as computed in both update orders, and the orders that give the printed digits."""

    name: str
    printed: str
    simultaneous: float
    layerwise: float
    matches: tuple[str, ...]


def population(count: int = 1, dtype: torch.dtype = torch.float64, spec: NetworkSpec = SPEC) -> Population:
    """`count` copies of the tutorial's network; `spec` may have other biases."""
    made = Population.create(spec, count=count, dtype=dtype)
    (weight1, bias1), (weight2, bias2) = spec.layers(made.params)
    weight1[:] = torch.tensor([[0.15, 0.25], [0.20, 0.30]], dtype=dtype)  # (I, O): w1 w3, w2 w4
    weight2[:] = torch.tensor([[0.40, 0.50], [0.45, 0.55]], dtype=dtype)
    bias1.fill_(0.35)
    bias2.fill_(0.60)
    return made


def dataset(dtype: torch.dtype = torch.float64) -> Dataset:
    """The tutorial's one sample."""
    return Dataset(torch.tensor([[0.05, 0.10]], dtype=dtype), torch.tensor([[0.01, 0.99]], dtype=dtype))


def config(steps: int = ROUNDS, update_order: str = "simultaneous") -> TrainConfig:
    """The tutorial's training; a round is a step."""
    return TrainConfig(optimizer="sgd", lr=0.5, batch_size=1, steps=steps, update_order=update_order)


def figures(
    update_order: str = "simultaneous", rounds: int = ROUNDS, spec: NetworkSpec = SPEC, engine: str = "eager"
) -> dict[str, float]:
    """Every printed figure as computed by gpubp, by name and in order; errata follow the figure they explain. rounds: 2
    or more."""
    data, networks, training = dataset(), population(spec=spec), config(rounds, update_order)
    run = choose(engine, spec, training, networks.device, networks.params.dtype).engine.run
    state = TrainState.start(networks, training, data)
    state.limit.copy_(state.end)

    def error_after(steps: int) -> float:
        run(state, data, steps)
        return float(gradients(spec, networks.params, data.inputs, data.targets)[0])

    step = explain(state, data).to_dict()
    hidden, output = step["layers"]
    through = output["weight"]["new" if update_order == "layerwise" else "value"]
    found = {
        "net_h1": hidden["net"][0][0],
        "out_h1": hidden["out"][0][0],
        "out_h2": hidden["out"][0][1],
        "net_o1": output["net"][0][0],
        "out_o1": output["out"][0][0],
        "out_o2": output["out"][0][1],
        "E_o1": step["error"]["outputs"][0][0],
        "E_o2": step["error"]["outputs"][0][1],
        "E_total": step["error"]["E_total"],
        "dE_total/dout_o1": output["dE/dout"][0][0],
        "dout_o1/dnet_o1": output["dout/dnet"][0][0],
        "dnet_o1/dw5": output["enters"][0][0],
        "dE_total/dw5": output["weight"]["dE"][0][0],
        **_numbered(output, 5),
        "dE_o2/dout_h1": hidden["dE_o/dout"][0][0][1],
        ROUNDED: round(output["delta"][0][1], 9) * through[1][0],
        "dE_total/dout_h1": hidden["dE/dout"][0][0],
        "dout_h1/dnet_h1": hidden["dout/dnet"][0][0],
        "dE_total/dw1": hidden["weight"]["dE"][0][0],
        **_numbered(hidden, 1),
        "E after 1 round": error_after(1),
    }
    earlier, last = error_after(rounds - 2), error_after(1)
    first, second = forward(spec, networks.params, data.inputs)[0, 0].tolist()
    return found | {
        f"E after {rounds:,} rounds": last,
        f"E after {rounds - 1:,} rounds": earlier,
        f"out_o1 after {rounds:,} rounds": first,
        f"out_o2 after {rounds:,} rounds": second,
    }


def _numbered(layer: dict[str, Any], first: int) -> dict[str, float]:
    """A layer's new weights as w1+, w2+ ..."""
    return {f"w{number}+": new for number, new in enumerate(itertools.chain(*layer["weight"]["new"]), first)}


def agrees(value: float, printed: str) -> bool:
    """Whether `value`, rounded to the printed decimals, half away from zero, has the printed digits."""
    return Decimal(repr(value)).quantize(Decimal(printed), ROUND_HALF_UP) == Decimal(printed)


def compare(rounds: int = ROUNDS, engine: str = "auto") -> list[Figure]:
    """Every printed figure and ours, in both orders. `printed` is empty at the end of training unless there are 10,000
    rounds, as in the tutorial."""
    both = {order: figures(order, rounds, engine=engine) for order in ORDERS}
    rows = []
    for name in both[ORDERS[0]]:
        printed = PRINTED.get(ERRATA.get(name, name), "")
        values = {order: found[name] for order, found in both.items()}
        matches = tuple(order for order, value in values.items() if printed and agrees(value, printed))
        rows.append(Figure(name, printed, **values, matches=matches))
    return rows


def reproduced(rows: list[Figure]) -> bool:
    """Whether every printed figure is matched to its last digit in one of the orders, or by its erratum."""
    return {ERRATA.get(row.name, row.name) for row in rows if row.matches} == set(PRINTED)


def table(rows: list[Figure]) -> Table:
    """`rows` for the console, with three more decimals than printed."""
    made = Table("figure", "printed", *ORDERS, "printed digits", title="The tutorial: printed figures and ours")
    for row in rows:
        decimals = len(row.printed.partition(".")[2]) + 3 if row.printed else 13
        values = (f"{value:.{decimals}f}" for value in (row.simultaneous, row.layerwise))
        verdict = "both" if len(row.matches) == 2 else "".join(row.matches)
        made.add_row(row.name, row.printed, *values, verdict or ("no" if row.printed else ""))
    return made
