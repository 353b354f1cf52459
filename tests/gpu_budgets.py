"""What the workloads' kernels take on sm_90, as NVRTC and nvdisasm say: the table gpu_budgets.json.

python -m tests.gpu_budgets writes it anew and prints it. Nothing here runs on a GPU, and nothing is a time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gpubp
from gpubp.engines import chip, cuda, nvrtc
from gpubp.engines.chip import Limits
from gpubp.engines.program import Layout, Program, Samples

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
COUNTED = ("FFMA", "FADD", "FMUL", "MUFU", "LDS", "STS", "LDG", "BAR")


class Instruction(NamedTuple):
    """address and target: bytes from the kernel's begin; target: of a jump, else -1."""

    address: int
    name: str
    text: str
    target: int


def version() -> str:
    """NVRTC's."""
    return nvrtc.compiler()[1]


def disassembler() -> str | None:
    """nvdisasm of the package nvidia-cuda-nvdisasm, or of the PATH."""
    try:
        import nvidia

        found = [path for each in nvidia.__path__ for path in Path(each).glob("*/bin/nvdisasm")]
    except ImportError:
        found = []
    return str(found[0]) if found else shutil.which("nvdisasm")


def instructions(code: bytes) -> list[Instruction]:
    """Of the kernel, without what fills up its end."""
    tool = disassembler()
    assert tool
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel.cubin")
        Path(path).write_bytes(code)
        text = subprocess.run([tool, "-c", path], capture_output=True, text=True, check=True).stdout
    places, found, waiting = {}, [], []
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L\w+):", line):
            waiting.append(label[1])
        elif word := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);", line):
            address = int(word[1], 16)
            places.update(dict.fromkeys(waiting, address))
            waiting = []
            found.append((address, word[2], word[3]))
    jumps = (
        (re.search(r"`\((\.L\w+)\)", rest) if name.startswith(("BRA", "JMP")) else None) for _, name, rest in found
    )
    every = [
        Instruction(address, name.split(".")[0], f"{name}{rest}", places[jump[1]] if jump else -1)
        for (address, name, rest), jump in zip(found, jumps)
    ]
    return [each for each in every if each.name != "NOP" and each.target != each.address]


def step(found: list[Instruction]) -> list[Instruction]:
    """The loop over steps: of the loops with the most work in them, the smallest."""
    loops = [
        [each for each in found if jump.target <= each.address <= jump.address]
        for jump in found
        if 0 <= jump.target < jump.address
    ]
    weights = [(sum(each.name in ("FFMA", "MUFU") for each in loop), loop) for loop in loops]
    most = max(weight for weight, _ in weights)
    return min((loop for weight, loop in weights if weight > 0.9 * most), key=len)


def program(name: str) -> Program:
    """A workload's, not yet laid out."""
    widths, hidden, output, loss, optimizer, batch, shuffle = WORKLOADS[name]
    spec = gpubp.NetworkSpec(widths, hidden, output, loss)
    config = gpubp.TrainConfig(optimizer, lr=0.1, batch_size=batch, steps=10)
    samples = Samples(own=True, rows=False, inputs=False, weight=0, shuffle=shuffle)
    return Program(spec, config, list(config.switched_on(loss)), torch.float32, samples, Layout())


def figures(name: str, limits: Limits = H100) -> dict[str, Any]:
    """A row of the table."""
    kernel = cuda._best(program(name), limits)
    layout = kernel.program.layout
    row: dict[str, Any] = {
        "networks": layout.together if layout.team else "a thread each", "threads": chip.block(layout)[0],
        "chunk": layout.chunk or kernel.program.config.batch_size, "registers": kernel.use.registers,
        "local": kernel.use.local, "shared": chip.shared(kernel.program),
    }  # fmt: skip
    if disassembler():
        loop = step(instructions(kernel.code))
        names = Counter(each.name for each in loop)
        row |= {"step": len(loop), **{each: names[each] for each in COUNTED}}
    return row


if __name__ == "__main__":
    table = {"nvrtc": version(), "arch": H100.arch, "workloads": {name: figures(name) for name in WORKLOADS}}
    TABLE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
