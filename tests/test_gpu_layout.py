"""The rules by which a network fits on the chip of a GPU."""

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gpubp
from gpubp.engines import build, chip, cuda, stream
from gpubp.engines.key import Key, Samples
from gpubp.engines.layout import Kind, Layout
from gpubp.engines.program import Program

from .gpu_budgets import ON_CORES, WORKLOADS
from .gpu_budgets import program as workload
from .helpers import had
from .playing import H100, HEADER

PARTS = Layout(Kind.GPU_BLOCK, threads=8, teams=4)
OWN = Samples(own=True, rows=False, inputs=False, weight=0, shuffle="network")


def program(
    widths: tuple[int, ...], batch: int = 32, optimizer: str = "adam", dtype: torch.dtype = torch.float32,
    order: str = "simultaneous",
) -> Program:  # fmt: skip
    spec = gpubp.NetworkSpec(widths, "relu")
    config = gpubp.TrainConfig(optimizer, batch_size=batch, steps=1, update_order=order)
    return Program(Key(spec, config.recipe(spec), dtype, OWN), Layout())


def test_a_thread_is_a_network_only_where_its_numbers_may_be_registers() -> None:
    assert chip.in_registers(program((2, 2, 2), 1), H100)
    assert chip.in_registers(program((4, 8, 3), 1, "sgd"), H100)
    assert not chip.in_registers(program((4, 8, 3), 1), H100), "three rows"
    assert not chip.in_registers(program((4, 8, 3), 1, "sgd", torch.float64), H100), "numbers of two words"
    assert not chip.in_registers(program((2, 2, 2), 32), H100), "outs of a batch"


@pytest.mark.parametrize(
    ("widths", "batch", "threads", "teams"),
    [((2, 2, 2), 1, 8, 4), ((8, 16, 1), 16, 16, 2), ((8, 16, 1), 32, 32, 1), ((64, 32, 10), 64, 128, 1),
     ((16, 64, 64, 4), 128, 256, 1), ((32, 256, 8), 32, 256, 1)],
)  # fmt: skip
def test_a_network_has_a_thread_for_16_numbers_of_the_largest_product_and_shares_a_warp_where_it_needs_less(
    widths: tuple[int, ...], batch: int, threads: int, teams: int
) -> None:
    own = chip.in_shared_memory(program(widths, batch), H100)
    assert (own.layout.threads, own.layout.teams) == (threads, teams)
    assert chip.block(own.layout) == (threads * teams, teams)


@pytest.mark.parametrize("widths", [(8, 16, 1), (1, 5, 1, 6, 1), (3, 1, 1)])
def test_a_column_is_packed_and_every_matrix_begins_at_a_v(widths: tuple[int, ...]) -> None:
    for batch, threads in itertools.product((6, 32), (8, 32)):
        plan = program(widths, batch).laid_out(replace(chip.WIDE, threads=threads)).plan
        assert all((pitch == 1) == (width == 1) for width, pitch in zip(widths, plan.pitch))
        assert not any(at % 4 for at in (*plan.weights, *plan.outs))


def test_networks_do_not_share_a_warp_where_memory_is_for_one() -> None:
    own = program((8, 16, 1), 16)
    two = chip.in_shared_memory(own, H100)
    one = chip.in_shared_memory(own, chip.Limits(90, two.plan.shared - 1))
    assert (one.layout.threads, one.layout.teams) == (32, 1)
    assert one.plan.shared < two.plan.shared / 2 + 128


def test_layouts_are_tried_in_order() -> None:
    """Whole, in chunks, slots outside; then matrices are streamed."""
    whole, seen = program((64, 64, 10), 256), []
    most = whole.laid_out(Layout(Kind.GPU_BLOCK, threads=32, chunk=256)).plan.shared
    for room in range(most, 0, -2048):
        own = chip.in_shared_memory(whole, chip.Limits(90, room))
        if own is None:
            assert chip.streamed(whole, chip.Limits(90, room))
            break
        assert own.plan.shared <= room
        seen.append((not own.layout.slots_apart, own.layout.chunk))
    order = [place for place, _ in itertools.groupby(seen)]
    assert order[0] == (True, 256)
    assert order == sorted(order, reverse=True), "the slots leave last, and the pieces get smaller"
    assert {near for near, _ in order} == {True, False}
    assert min(chunk for _, chunk in order) == 16


def test_blocks_of_99_kb_have_room_for_every_workload() -> None:
    """Those of sm_86, sm_89 and sm_120. Two are laid out otherwise than on sm_90: in chunks, one with slots outside."""
    limits, other = chip.Limits(89, 99 << 10), {}
    for name in {*WORKLOADS} - {*ON_CORES}:
        own, large = (
            chip.in_registers(workload(name), each) or chip.in_shared_memory(workload(name), each)
            for each in (limits, H100)
        )
        assert own.plan.shared <= limits.block
        if own.layout != large.layout:
            other[name] = (own.layout.threads, own.layout.chunk, own.layout.slots_apart)
    assert other == {"16-64-64-4, batch 128, sgd": (256, 43, False), "16-64-64-4, batch 128, adam": (256, 43, True)}


def test_a_batch_that_must_stay_whole_is_not_cut() -> None:
    layered = program((64, 64, 10), 256, "momentum", order="layerwise")
    cut = program((64, 64, 10), 256, "momentum")
    room, whole = (
        min(each.laid_out(replace(layout, threads=32)).plan.shared for layout in chip._blocks(each))
        for each in (cut, layered)
    )
    assert chip.in_shared_memory(layered, chip.Limits(90, room)) is None
    assert chip.in_shared_memory(layered, chip.Limits(90, whole))
    assert [chip._streamed(each).layout.chunk for each in (program((64, 64, 10), 600, "momentum"), layered)] == [200, 0]


@pytest.mark.parametrize(
    ("widths", "batch", "optimizer", "layout"),  # threads, networks, chunk, slots apart
    [((64, 32, 10), 64, "adam", (32, 1, 32, True)), ((16, 64, 64, 4), 128, "sgd", (64, 1, 32, False)),
     ((8, 16, 1), 512, "sgd", (16, 2, 16, False)), ((2, 2, 2), 4, "sgd", None),
     ((8, 16, 1), 24, "adam", (16, 2, 24, False)), ((8, 16, 1), 32, "adam", (16, 2, 16, False)),
     ((128, 128, 2), 16, "sgd", None)],
)  # fmt: skip
def test_a_block_is_wide_where_that_is_estimated_to_be_faster(
    widths: tuple[int, ...], batch: int, optimizer: str, layout: tuple[int, int, int, bool] | None
) -> None:
    plain = chip.in_shared_memory(program(widths, batch, optimizer), H100)
    found = chip.wide(plain, H100)
    chosen = [(own.threads, own.teams, own.chunk, own.slots_apart) for own in (each.layout for each in found)]
    assert chosen[:1] == ([layout] if layout else [])
    assert len(chosen) <= 2
    assert chosen == sorted(chosen, key=lambda each: each[0]), "the second has fewer gradients per thread"
    for each in found:
        assert each.plan.shared <= H100.block
        assert chip.cycles(each, H100) < chip.WORTH * chip.cycles(plain, H100)


def test_a_wide_block_is_of_float32_and_a_batch_that_must_stay_whole_is() -> None:
    layered, double = program((64, 64, 10), 128, order="layerwise"), program((64, 64, 10), 128, dtype=torch.float64)
    for own, expected in ((layered, {128}), (double, set())):
        plain = chip.in_shared_memory(own, H100)
        assert {each.layout.chunk for each in chip._wide_blocks(plain, H100)} == expected


def test_wide_networks_do_not_fit_and_are_streamed_in_little_shared_memory() -> None:
    for widths in ((784, 128, 10), (1024, 1024, 1024, 1)):
        assert chip.in_shared_memory(program(widths, 64), H100) is None
        own = chip.streamed(program(widths, 64), H100)
        assert 2 * (own.plan.shared + 1024) < 100 << 10, "two blocks on a multiprocessor of any GPU"


@pytest.mark.parametrize(
    ("widths", "batch", "optimizer", "streamed"),
    [((128, 128, 10), 64, "adam", True), ((200, 100, 10), 64, "sgd", True), ((64, 128, 10), 64, "adam", False),
     ((64, 32, 10), 64, "adam", False), ((784, 32, 10), 32, "sgd", True), ((128, 128, 2), 16, "sgd", False)],
)  # fmt: skip
def test_a_block_that_finds_place_streams_where_that_is_estimated_to_be_faster(
    widths: tuple[int, ...], batch: int, optimizer: str, streamed: bool
) -> None:
    plain = chip.in_shared_memory(program(widths, batch, optimizer), H100)
    assert any(each.layout.streamed for each in chip.better(plain, H100)) == streamed
    whole = program(widths, batch, optimizer, torch.float64)
    double = chip.in_shared_memory(whole, H100) or chip.streamed(whole, H100)
    assert chip.better(double, H100) == [], "only float32 is estimated"


def test_a_fuller_block_has_one_more_warp_for_each_scheduler_where_shared_memory_has_room() -> None:
    own = program((8, 48, 36), 8, "sgd").laid_out(replace(chip.WIDE, threads=32, chunk=8))
    assert 12 < (H100.block + 1024) // (own.plan.shared + 1024) <= 16
    for registers, expected in ((255, 12), (161, 16), (128, None)):  # eight, twelve and sixteen blocks by registers
        fuller = chip.fuller(own, registers, H100)
        assert (fuller and fuller.layout.at_once) == expected
    plain = program((8, 48, 36), 8, "sgd").laid_out(replace(chip.BLOCK, threads=32, chunk=8))
    assert chip.fuller(plain, 255, H100) is None


def test_an_estimate_grows_with_the_batch_and_with_what_moves() -> None:
    least = chip.streamed_cycles(chip._streamed(program((784, 128, 10), 64, "sgd")))
    assert 1.1 < chip.streamed_cycles(chip._streamed(program((784, 128, 10), 64, "adam"))) / least < 2
    assert 7 < chip.streamed_cycles(chip._streamed(program((784, 128, 10), 512, "sgd"))) / least < 8.5


@pytest.mark.parametrize("shape", [(64, 32, 784), (784, 32, 64), (64, 3, 128), (1, 1, 1), (1024, 256, 256), (33, 2, 6)])
@pytest.mark.parametrize("threads", [8, 128])
def test_a_block_computes_at_once_what_its_threads_have_registers_for(
    shape: tuple[int, int, int], threads: int
) -> None:
    layout = replace(chip.STREAMED, registers=4, threads=threads)
    rows, cols = stream.block_tile(shape, layout)
    each = stream.of_thread((rows, cols), layout)
    assert rows <= shape[0]
    assert cols <= shape[1]
    assert -(-rows // each.rows) * -(-cols // each.cols) <= threads
    assert each.rows * each.cols <= 16, "64 sums"
    if shape[0] * shape[1] >= 16 * threads:
        assert rows * cols >= 8 * threads, "and not much less"


BATCHES = range(1, 17)  # which leave every remainder of the 64 bytes to which what a block keeps is rounded up


@pytest.mark.parametrize(
    ("dtype", "batches"),
    [(torch.float32, BATCHES[::5]), (torch.float64, BATCHES[1::5]),
     *(pytest.param(dtype, BATCHES, marks=pytest.mark.slow) for dtype in (torch.float32, torch.float64))],
)  # fmt: skip
def test_host_and_kernel_count_the_same_bytes(dtype: torch.dtype, batches: range, tmp_path: Path) -> None:
    command = had(build.compiler)
    source = tmp_path / "kernel.cpp"
    for batch in batches:
        optimizer = ("sgd", "adam")[batch % 3 == 0]
        alone = Layout(Kind.GPU_BLOCK, threads=32, chunk=batch)
        own = program((3, 5, 2), batch, optimizer, dtype).laid_out((alone, PARTS)[batch % 2])
        source.write_text(f'#include "{HEADER}"\n{cuda.text(own)}', encoding="utf-8")
        checked = [*command, "-std=c++17", "-w", "-fsyntax-only", f"-I{build.SOURCES}", str(source)]
        done = subprocess.run(checked, capture_output=True, text=True)
        assert done.returncode == 0, f"batch {batch}: {done.stderr[-2000:]}"
