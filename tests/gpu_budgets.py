"""What the workloads' kernels take on sm_90, as NVRTC says: the table gpu_budgets.json.

python -m tests.gpu_budgets writes it anew and prints it. Nothing here runs on a GPU, and nothing is a time.
"""

import json
from pathlib import Path
from typing import Any

import torch

import gpubp
from gpubp.engines import chip, cuda, nvrtc
from gpubp.engines.chip import Limits
from gpubp.engines.key import Key, Samples
from gpubp.engines.layout import Layout
from gpubp.engines.program import Program

TABLE = Path(__file__).parent / "gpu_budgets.json"
H100 = Limits(90, 227 << 10)
WORKLOADS: dict[str, tuple[tuple[int, ...], str, str, str, str, int, str]] = {
    # widths, hidden, output, loss, optimizer, batch, shuffle
    "2-2-2, batch 1, sgd, in order": ((2, 2, 2), "sigmoid", "sigmoid", "half_squared_error", "sgd", 1, "none"),
    "2-2-2, batch 1, sgd": ((2, 2, 2), "sigmoid", "sigmoid", "half_squared_error", "sgd", 1, "network"),
    "2-2-2, batch 1, adam": ((2, 2, 2), "sigmoid", "sigmoid", "half_squared_error", "adam", 1, "network"),
    "4-8-3, batch 1, adam": ((4, 8, 3), "tanh", "identity", "mean_squared_error", "adam", 1, "network"),
    "8-16-1, batch 32, adam": ((8, 16, 1), "tanh", "identity", "mean_squared_error", "adam", 32, "network"),
    "64-32-10, batch 64, adam": ((64, 32, 10), "relu", "identity", "cross_entropy", "adam", 64, "network"),
    "16-64-64-4, batch 128, sgd": ((16, 64, 64, 4), "relu", "identity", "mean_squared_error", "sgd", 128, "network"),
    "16-64-64-4, batch 128, adam": ((16, 64, 64, 4), "relu", "identity", "mean_squared_error", "adam", 128, "network"),
}
ON_CORES = ("64-32-10, batch 64, adam, tf32", "64-32-10, batch 64, adam, 3xtf32", "16-64-64-4, batch 128, sgd, tf32")
WORKLOADS |= {name: WORKLOADS[name.rpartition(", ")[0]] for name in ON_CORES}


def version() -> str:
    """NVRTC's."""
    return nvrtc.compiler()[1]


def program(name: str) -> Program:
    """A workload's, not yet laid out."""
    widths, hidden, output, loss, optimizer, batch, shuffle = WORKLOADS[name]
    spec = gpubp.NetworkSpec(widths, hidden, output, loss)
    precision = name.rpartition(", ")[2] if name in ON_CORES else "exact"
    config = gpubp.TrainConfig(optimizer, lr=0.1, batch_size=batch, steps=10, precision=precision)
    samples = Samples(own=True, rows=False, inputs=False, weight=0, shuffle=shuffle)
    return Program(Key(spec, config.recipe(spec), torch.float32, samples), Layout())


def figures(name: str, limits: Limits = H100) -> dict[str, Any]:
    """A row of the table."""
    kernel = cuda._best(program(name), limits)
    layout = kernel.program.layout
    return {
        "networks": layout.teams if layout.kind.block else "a thread each", "threads": chip.block(layout)[0],
        "chunk": layout.chunk or kernel.program.recipe.batch_size, "registers": kernel.use.registers,
        "local": kernel.use.local, "shared": kernel.program.plan.shared,
    }  # fmt: skip


if __name__ == "__main__":
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(figures(name))}" for name in WORKLOADS)
    TABLE.write_text(
        f'{{"nvrtc": "{version()}", "arch": {H100.arch}, "workloads": {{\n{rows}\n}}}}\n', encoding="utf-8"
    )
    print(TABLE.read_text(encoding="utf-8"))
