"""A step's instructions, counted by hand and as compiled, and the tables of docs/gpu.md that say so."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from gpubp.engines import nvrtc
from gpubp.errors import EngineError

from . import gpu_budgets, gpu_steps

DOCUMENT = Path(__file__).parent.parent / "docs" / "gpu.md"
WITHIN = 1.5  # of the hand's count


@pytest.fixture(autouse=True, scope="module")
def tools() -> None:
    try:
        nvrtc.compiler()
    except EngineError as error:
        pytest.skip(str(error))
    if not gpu_budgets.disassembler():
        pytest.skip("nvdisasm is not installed (nvidia-cuda-nvdisasm)")
    written = json.loads(gpu_budgets.TABLE.read_text(encoding="utf-8"))["nvrtc"]
    if written != gpu_budgets.version():
        pytest.skip(f"the counts are NVRTC {written}'s, this is {gpu_budgets.version()}")


def test_a_step_is_within_one_and_a_half_of_the_hand() -> None:
    found = {name: sum(counts.values()) / hand for name, (hand, counts, _) in gpu_steps.steps().items()}
    assert {name: ratio for name, ratio in found.items() if not 0.8 < ratio < WITHIN} == {}
    assert found.keys() == {*gpu_steps.THREADS, *gpu_steps.BLOCKS}


@pytest.mark.parametrize("name", gpu_steps.BLOCKS)
def test_every_multiply_add_of_a_product_is_counted_once(name: str) -> None:
    """Those of its tiles, and no more beside them than an update and an activation have."""
    products = [(phase, counts) for phase, counts in gpu_steps.by_phases(name) if phase.k]
    widths = gpu_steps.program(name).spec.widths
    assert len(products) == 4 * (len(widths) - 1) - 1
    for phase, counts in products:
        own = math.ceil(phase.items / gpu_steps.WARP) * phase.tile
        assert phase.k * own <= counts["FFMA"] <= (phase.k + 12) * own, phase.name


def test_the_document_has_the_tables() -> None:
    before, after = DOCUMENT.read_text(encoding="utf-8").split("\n## What a step costs\n")
    steps = itertools.chain(gpu_steps.overview(), *map(gpu_steps.detail, gpu_steps.BLOCKS[:2]))
    missing = [line for line in gpu_steps.kernels() if f"{line}\n" not in before]
    missing += [line for line in steps if f"{line}\n" not in after]
    assert missing == [], "python -m tests.gpu_steps prints them"


def test_what_ordinary_numbers_jump_over_is_not_counted() -> None:
    """A loop in text: a jump over a call, a walk back, and the jump to the next step."""

    def line(address: int, name: str, target: int = -1) -> gpu_budgets.Instruction:
        return gpu_budgets.Instruction(address, name, name, target)

    loop = [line(0, "FFMA"), line(1, "BRA", 4), line(2, "MOV"), line(3, "CALL"), line(4, "IADD3"), line(5, "BRA", 4),
            *(line(number, "FADD") for number in range(6, 16)), line(16, "BRA", 0)]  # fmt: skip
    assert gpu_steps.issued_by_a_thread(loop) == Counter(FFMA=1, FADD=10, BRA=2)
    assert gpu_steps.cycles(Counter(FFMA=8, LDS=3, MUFU=2)) == {
        "issue": 13 / 4, "multiply-adds": 2, "shared memory": 3, "estimates": 4}  # fmt: skip
