"""The rule that chooses how the compiled engine lays networks out: what it takes where. It may change no bit, and
test_compiled_independence.py proves that; here it is held to what was measured."""

from dataclasses import replace

import pytest
import torch

import gpubp
from gpubp.engines import build, choose, layout
from gpubp.engines.general import chosen as chosen_layouts
from gpubp.engines.key import Key, Samples
from gpubp.engines.layout import REACH, SLICE, Kind, Layout, chunk_of, group_cost, largest_index, thread_count
from gpubp.engines.program import Program
from gpubp.errors import EngineError

from .helpers import needs_compiler

AVX512, AVX2, NEON = 64, 32, 16
MEGABYTE = 1 << 20


def chosen(
    widths: tuple[int, ...], batch: int, count: int = 1000, threads: int = 2, slots: int = 2, itemsize: int = 4,
    vector_bytes: int = AVX512, whole: bool = False,
) -> Layout:  # fmt: skip
    return chosen_layouts(widths, batch, slots, itemsize, count, threads, vector_bytes, whole).own


@pytest.fixture(autouse=True)
def one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same L2 on every machine."""
    monkeypatch.setattr(layout, "cache_bytes", lambda: MEGABYTE)
    chosen_layouts.cache_clear()


@pytest.mark.parametrize("vector_bytes", [AVX512, AVX2, NEON])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_a_register_holds_as_many_lanes_as_it_has_room_for(vector_bytes: int, itemsize: int) -> None:
    assert chosen((8, 16, 1), 32, itemsize=itemsize, vector_bytes=vector_bytes).vector == vector_bytes // itemsize


def test_lanes_are_networks_where_layers_are_narrow_and_outputs_where_they_are_wide() -> None:
    assert chosen((8, 16, 1), 32).kind == Kind.CPU_NETWORKS
    assert chosen((64, 32, 10), 64).kind == Kind.CPU_NETWORKS
    assert chosen((784, 128, 10), 64).kind == Kind.CPU_OUTPUTS
    assert chosen((16, 64, 64, 4), 128).kind == Kind.CPU_OUTPUTS


def test_a_few_networks_do_not_fill_the_lanes_of_many() -> None:
    assert chosen((64, 32, 10), 64, count=2).kind == Kind.CPU_OUTPUTS


def test_threads_share_a_lone_network_whose_step_is_long_enough() -> None:
    assert chosen((784, 128, 10), 64, count=1).kind == Kind.CPU_TEAM
    assert chosen((8, 16, 1), 32, count=1).kind != Kind.CPU_TEAM
    assert chosen((784, 128, 10), 64, count=1, threads=1).kind != Kind.CPU_TEAM
    assert chosen((784, 128, 10), 64, count=2).kind != Kind.CPU_TEAM


def test_three_registers_hide_the_latency_of_tiny_networks_alone() -> None:
    assert chosen((2, 2, 2), 1).registers == 3
    assert chosen((2, 2, 2), 4).registers == 1
    assert chosen((64, 32, 10), 1).registers == 1
    assert chosen((2, 2, 2), 1, count=40).registers == 1, "there are not enough networks for all threads"


def test_a_batch_is_cut_from_four_slices_on_unless_it_must_stay_whole() -> None:
    assert chosen((8, 16, 1), 4 * SLICE - 1).chunk == 4 * SLICE - 1
    assert chosen((8, 16, 1), 4 * SLICE).chunk == SLICE
    assert chosen((8, 16, 1), 4 * SLICE, whole=True).chunk == 4 * SLICE


@pytest.mark.parametrize(("batch", "size"), [(128, 32), (200, 40), (192, 32), (150, 50), (1000, 40), (131, 32)])
def test_chunks_are_equal_if_they_can_be(batch: int, size: int) -> None:
    assert chunk_of(batch) == size


def test_lanes_as_outputs_cut_a_batch_whose_outs_do_not_fit() -> None:
    assert chosen((784, 128, 10), 256).chunk == 256
    assert chosen((784, 128, 10), 65_536).chunk == SLICE


def test_a_thread_is_begun_for_work_that_is_worth_it() -> None:
    narrow = chosen((8, 16, 1), 32)
    group, spent = narrow.networks, group_cost(narrow, (8, 16, 1), 32, 2)
    threads = [thread_count(group, spent, count, 16, 64) for count in (1, 100, 10_000, 1_000_000)]
    assert threads[0] == 1
    assert threads == sorted(threads)
    assert threads[-1] == 64
    assert thread_count(group, spent, 100, 10_000, 2) == 2


def text(widths: tuple[int, ...], batch: int, layout: Layout) -> str:
    spec, config = gpubp.NetworkSpec(widths), gpubp.TrainConfig("adam", batch_size=batch, steps=1)
    return Program(Key(spec, config.recipe(spec), torch.float32, Samples()), layout).text


WIDE = Layout(Kind.CPU_OUTPUTS, 4)
LARGE = [
    ((20_000, 40_000), 1, WIDE),
    ((8, 300, 1), 1 << 23, replace(WIDE, chunk=32)),
    ((8_000, 8_000), 1, Layout(vector=16, registers=3)),
    ((8, 300, 1), 1 << 19, Layout(vector=16)),
    ((2, 2), 1 << 28, Layout(vector=16)),
]


@pytest.mark.parametrize(("widths", "batch", "layout"), LARGE)
def test_a_kernel_whose_indices_overflow_does_not_compile(widths: tuple[int, ...], batch: int, layout: Layout) -> None:
    assert largest_index(widths, batch, 2, layout) > REACH
    needs_compiler()
    with pytest.raises(EngineError, match="beyond the reach of an index"):
        build.library(text(widths, batch, layout) + '#include "cpu.h"\n')


@pytest.mark.parametrize(("widths", "batch"), [((20_000, 40_000), 1), ((8, 16, 1), 1 << 28)])
def test_networks_whose_indices_overflow_are_left_to_eager(widths: tuple[int, ...], batch: int) -> None:
    spec, config = gpubp.NetworkSpec(widths), gpubp.TrainConfig("adam", batch_size=batch, steps=1)
    here = torch.device("cpu")
    choice = choose("auto", spec, config, here)
    assert choice.name == "eager"
    assert "that an index can address" in choice.reason
    with pytest.raises(EngineError, match=f"{spec.size:,} parameters with 2 optimizer slots each, or batch_size"):
        choose("cpu", spec, config, here)


def test_a_layout_whose_indices_overflow_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = (8, 16, 1)
    assert chosen(widths, 32).kind == Kind.CPU_NETWORKS
    monkeypatch.setattr(layout, "REACH", largest_index(widths, 32, 2, chosen(widths, 32)) - 1)
    chosen_layouts.cache_clear()
    assert chosen(widths, 32).kind == Kind.CPU_OUTPUTS
