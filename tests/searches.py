"""Networks of which it is known which learn faster: one weight w, the mean squared error of w x, gradient descent. A
step on all samples, or on half of them, multiplies the error of w by 1 - 2 lr mean(x^2), so that up to its inverse a
larger rate is better after any number of steps; a much larger one diverges. And a run to stop, kill and resume.
"""

from pathlib import Path
from typing import Any

import torch

import gpubp
from gpubp.search import AsynchronousHalving, PopulationBased, SuccessiveHalving

COMMON = {"widths": "1,1", "bias": "none", "loss": "mean_squared_error", "optimizer": "sgd", "batch_size": 16,
          "seed": 3, "shuffle": "none"}  # fmt: skip
SEARCHES = {
    "halving": SuccessiveHalving(factor=2),
    "asha": AsynchronousHalving(factor=2),
    "pbt": PopulationBased(every=2, space={"lr": "1e-4..0.5:log", "dropout": [0.1, 0.2, 0.4]}),
}


def line() -> gpubp.Dataset:
    inputs = torch.linspace(-1, 1, 16)[:, None]
    return gpubp.Dataset(inputs, 3 * inputs)


LINE = line()


def train(rows: Any, search: Any, given: Any = LINE, held_out: Any = LINE, **more: Any) -> gpubp.Result:
    settings = {"engine": "eager", "dtype": torch.float64, "search": search, **more}
    return gpubp.train_many(rows, given, held_out, **settings)


def rated(rates: list[float], **settings: Any) -> list[dict[str, Any]]:
    """A design with these learning rates."""
    return [{**COMMON, "lr": rate, **settings} for rate in rates]


def ascending(count: int) -> list[float]:
    return torch.linspace(0.001, 0.1, count, dtype=torch.float64).tolist()


def data(seed: int = 1) -> gpubp.Dataset:
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 3, generator=source)
    return gpubp.Dataset(inputs, inputs.argmax(1))


def run(kind: str, folder: Path | None = None, epochs: int = 8, **more: Any) -> gpubp.Result:
    """Twelve networks of two topologies, one of which diverges, with a search; asha's take turns in five slots."""
    rows = [
        {"widths": ["3,6,3", "3,3"][n % 2], "lr": 1e38 if n == 4 else 10 ** (-4 + n / 3), "seed": n} for n in range(12)
    ]
    rows = [{**row, "dropout": 0.2} for row in rows]
    common = {"loss": "cross_entropy", "epochs": epochs, "batch_size": 8, "restore_best": True, "engine": "eager"}
    common |= {"slots": 5} if kind == "asha" else {}
    chosen = {"search": SEARCHES[kind], "run_dir": folder, "checkpoint_minutes": 0.0, **common, **more}
    return gpubp.train_many(rows, data(), data(9), **chosen)
