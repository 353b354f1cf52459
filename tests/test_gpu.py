"""The GPU engine on a GPU that the CPU plays: launch, layout and kernel are the real ones, and the bits are the CPU
engine's; faults that are planted in each of them are found out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import chip, cpu, cuda
from gpubp.engines.chip import Limits
from gpubp.engines.layout import Kind, Layout
from gpubp.state import Status, TrainState

from .helpers import compiled, copied, differences, laid_out, layouts  # noqa: F401
from .playing import Launch, Player, WrongError, flat, playing
from .test_compiled import BATCH, CASES, COUNT, STEPS, Case, case

EVERYONE = list(range(COUNT))
SLOW = pytest.mark.slow
THREAD, BLOCK = Layout(Kind.GPU_THREAD, threads=4), Layout(Kind.GPU_BLOCK, threads=8, accumulators=32, cols=8)
PARTS, QUADS = replace(BLOCK, teams=4), Layout(Kind.GPU_WIDE, registers=4, threads=8, accumulators=16, cols=2)
STREAMED = replace(QUADS, kind=Kind.GPU_STREAMED)
CLUSTER = replace(STREAMED, blocks=2)
LAYOUTS = {
    "thread": THREAD,
    "block": BLOCK,
    "block in chunks": replace(BLOCK, chunk=4),
    "block, slots outside": replace(BLOCK, slots_apart=True, threads=32),
    "parts of a warp": PARTS,
    "parts of a warp, slots outside": replace(PARTS, slots_apart=True),
    "block of quads": QUADS,
    "block of quads in chunks, slots outside": replace(QUADS, chunk=4, slots_apart=True, threads=32),
    "block of pairs, parts of a warp": replace(QUADS, registers=2, teams=4),
    "streamed": STREAMED,
    "streamed in chunks": replace(STREAMED, chunk=4, threads=32),
    "streamed pairs": replace(STREAMED, registers=2),
    "streamed by a cluster": CLUSTER,
    "streamed by a cluster in chunks": replace(CLUSTER, chunk=4, threads=32, blocks=4),
    "chosen": None,
}
CHOSEN = {  # cases, whose kernels for the CPU are test_compiled.py's, and layouts; the others of both are slow
    21: ("streamed pairs",), 25: ("block of quads in chunks, slots outside",),
    173: ("block of pairs, parts of a warp",),
}  # fmt: skip


def trained(own: Case, layout: Layout | None) -> TrainState:
    """By the GPU engine."""
    with playing(Player(), layout):
        return own.train(engine=cuda)


@pytest.mark.parametrize(
    ("number", "name"),
    [pytest.param(number, name, marks=[SLOW] * (name not in CHOSEN.get(number, ())))
     for number in sorted({*range(CASES), *CHOSEN}) for name in LAYOUTS],
)  # fmt: skip
def test_a_gpu_has_the_cpus_bits(number: int, name: str) -> None:
    own = case(number)
    if "chunks" in name and own.settings["update_order"] == "layerwise":
        pytest.skip("a layer that is updated before the delta below it needs the whole batch at once")
    with laid_out(layouts(own.dtype, BATCH)[own.layout]):
        expected = own.train()
    assert torch.equal(expected.step, expected.end)
    assert not differences(trained(own, LAYOUTS[name]), expected)


def small(**settings: Any) -> Case:
    """What the following tests train; few kernels serve them all."""
    spec = gpubp.NetworkSpec((3, 5, 2), "tanh")
    rest = {"optimizer": "adam", "batch_size": BATCH, "steps": STEPS, "lr": 0.02, "shuffle": "network"}
    return Case(spec, torch.float32, "shared", "", "chosen", rest | settings)


LAID_OUT = [THREAD, BLOCK, PARTS, QUADS, STREAMED, CLUSTER]


@pytest.mark.parametrize("layout", LAID_OUT)
def test_any_cut_and_any_end_gives_the_same_bits(layout: Layout) -> None:
    own = small(steps=[1 + (5 * n) % STEPS for n in EVERYONE])
    expected = own.train()
    with playing(Player(), layout):
        assert not differences(own.train(cuts=[1, 2, 3, 5, 100], engine=cuda), expected)
        state = own.start()
        state.status[[1, 4, 18]] = Status.stopped
        before = copied(state)
        cuda.run(state, own.data(), STEPS)
    assert not differences(state, before, [1, 4, 18]), "who stands still is not touched"
    rest = [n for n in EVERYONE if n not in (1, 4, 18)]
    assert not differences(state, expected, rest)


@pytest.mark.parametrize("layout", LAID_OUT)
def test_a_network_that_diverges_is_left_as_by_the_cpu(layout: Layout) -> None:
    own = small(lr=[1e30 if n % 4 == 1 else 3e38 if n % 4 == 2 else 0.01 for n in EVERYONE])
    expected = own.train()
    got = trained(own, layout)
    assert 0 < int((got.status == Status.diverged).sum()) < COUNT
    assert not differences(got, expected)
    assert torch.equal(got.diverged_step, expected.diverged_step)
    assert torch.equal(got.status, expected.status)


@pytest.mark.parametrize(
    ("layout", "pitch"),
    [(QUADS, 12), pytest.param(replace(QUADS, chunk=4, slots_apart=True, threads=32), 12, marks=SLOW),
     pytest.param(replace(QUADS, registers=2), 6, marks=SLOW)],
)  # fmt: skip
def test_matrices_of_one_column_have_the_cpus_bits(layout: Layout, pitch: int) -> None:
    """Whose entries are neighbours; a sum over all parameters, a slope of the net and dropout read them too."""
    own = small(dropout=0.3, clip_norm=0.5, l1=0.01, l2=0.05)
    own = own._replace(spec=gpubp.NetworkSpec((1, 5, 1, 1), "gelu"), weight="own weights")
    expected = own.train()
    with playing(Player(), layout) as player:
        found = own.train(engine=cuda)
    assert f"int PITCH[] = {{1, {pitch}, 1, 1}};" in player.launches[-1].text
    assert not differences(found, expected)


@pytest.mark.parametrize(
    ("processors", "blocks"), [(132, 8), *(pytest.param(*each, marks=SLOW) for each in ((1, 1), (8, 2)))]
)
def test_networks_beyond_the_chip_are_trained_and_evaluated_by_the_rules(processors: int, blocks: int) -> None:
    """Few of them by clusters of as many blocks as leave no multiprocessor idle, whose bits are those of one block."""
    own = small(steps=2)._replace(spec=gpubp.NetworkSpec((151, 100, 3), "tanh"))
    few, data = [0, 1, 2], own.data()
    expected = own.train(few)
    with playing(Player(Limits(90, 60_000, processors), 2 * processors)) as player:
        got = own.train(few, engine=cuda)
        found = cuda.evaluate(got.population, data, {}, got.position)
    assert all("LAYOUT GPU_STREAMED " in launch.text for launch in player.launches)
    *trained, evaluated = player.launches
    assert all(f"BLOCKS_PER_TEAM {blocks} " in launch.text for launch in trained)
    assert {launch.blocks for launch in trained} == {min(3, 2 * processors // blocks) * blocks}, "that run at once"
    assert (evaluated.blocks, evaluated.threads) == (min(3, 2 * processors), 128)
    assert not differences(got, expected)
    shown = cpu.evaluate(expected.population, data, {}, expected.position)
    assert all(torch.equal(one, other) for one, other in zip(found, shown))


def test_rows_that_do_not_lie_side_by_side_are_put_back() -> None:
    own = small()
    expected, state, networks = own.train(), own.start(), own.population()
    state.population = gpubp.Population(own.spec, networks.params.t().contiguous().t(), 5, networks.ids)
    assert not state.population.params.is_contiguous()
    with playing(Player(), THREAD):
        cuda.run(state, own.data(), STEPS)
    assert not differences(state, expected)


def test_networks_that_fit_no_other_way_have_their_slots_in_global_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device so small that the rules have to give way one after the other, to the same bits each time."""
    monkeypatch.setattr(chip, "WORTH", 0)  # no block is wide
    monkeypatch.setattr(chip, "FAR_WORTH", 0)  # or streams where another one fits
    few, own = EVERYONE[:5], small(batch_size=64, steps=4)
    own = own._replace(spec=gpubp.NetworkSpec((3, 20, 2), "tanh"))
    expected = own.train(few)
    seen = []
    for room in (10_000, 7_000):
        player = Player(Limits(90, room))
        with playing(player):
            found = own.train(few, engine=cuda)
        assert not differences(found, expected)
        launch = player.launches[-1]
        near, chunk = "#define SLOTS_APART 0" in launch.text, launch.text.split("int CHUNK = ")[1].split(";")[0]
        seen.append((near, int(chunk) < 64))
    assert seen == [(True, True), (False, True)]


# ---- planted faults


class Broken(Player):
    """A device that is handed something else than was meant."""

    def __init__(self, change: Callable[[Launch], Launch | None], **more: Any) -> None:
        super().__init__(**more)
        self.change = change

    def play(self, launch: Launch) -> None:
        changed = self.change(launch)
        super().play(launch if changed is None else changed)


def wrote(old: str, new: str) -> Callable[[Launch], Launch]:
    """Something in the sources of kernel/ replaced."""

    def change(launch: Launch) -> Launch:
        text = flat(launch.text)
        assert old in text, old
        return launch._replace(text=text.replace(old, new))

    return change


def field(name: str, value: Callable[[Any], Any]) -> Callable[[Launch], None]:
    """A field of the Job changed."""

    def change(launch: Launch) -> None:
        setattr(launch.job, name, value(getattr(launch.job, name)))

    return change


STALE = torch.zeros(COUNT * 64, dtype=torch.float64)
FAULTS: dict[str, tuple[Layout, Callable[[Launch], Launch | None]]] = {
    "a grid too small": (THREAD, lambda launch: launch._replace(blocks=launch.blocks - 1)),
    "no grid": (BLOCK, lambda launch: launch._replace(blocks=0)),
    "a step too many": (BLOCK, field("steps", lambda steps: steps + 1)),
    "a step too few": (THREAD, field("steps", lambda steps: steps - 1)),
    "a pointer from before": (THREAD, field("params", lambda _: STALE.data_ptr())),
    "another order": (BLOCK, field("seed", lambda seed: seed + 1)),
    "shared memory too small": (BLOCK, lambda launch: launch._replace(shared=launch.shared - 4)),
    "places in a row and rows exchanged": (THREAD, wrote("at / P * ROW_PITCH + at % P", "at % P * ROW_PITCH + at / P")),
    "the row of a neighbour": (THREAD, wrote("shared_rows(array) + threadIdx.x * ROW_PITCH", "shared_rows(array)")),
    "a stride that is not the threads'": (BLOCK, wrote("_PER_TEAM * THREADS)", "_PER_TEAM * THREADS + 1)")),
    "no barrier after a product": (BLOCK, wrote("epilogue(fragment);\n  }\n  BARRIER", "epilogue(fragment);\n  }\n")),
    "a barrier for some": (BLOCK, wrote("weigh_samples(ctx);", "weigh_samples(ctx); if (threadIdx.x) BARRIER")),
    "a barrier of the whole warp": (PARTS, wrote("((1u << THREADS) - 1) << (threadIdx.x - RANK)", "~0u")),
    "a barrier of the neighbours": (PARTS, wrote("(threadIdx.x - RANK)", "(24 - threadIdx.x + RANK)")),
    "the memory of the neighbours": (PARTS, wrote("team * TEAM_PITCH", "0 * TEAM_PITCH")),
    "networks that nobody trains": (PARTS, wrote("block * TEAMS_PER_BLOCK + team", "block * TEAMS_PER_BLOCK")),
    "no barrier after gradients": (QUADS, wrote("<samples>(delta);\n    BARRIER", "<samples>(delta);\n")),
    "no barrier after a product of quads": (QUADS, wrote("finish(epilogue);\n  BARRIER", "finish(epilogue);\n")),
    "a bias twice": (QUADS, wrote("k * pitch + column", "k * pitch")),
    "an output too few": (QUADS, wrote("min_of(N, ENTRIES_PER_V)", "min_of(N - 1, ENTRIES_PER_V)")),
    "a tile twice": (QUADS, wrote("square % squares_down", "square % 1")),
    "a column in one place": (QUADS, wrote("column) p[i * pitch + j]", "column) p[0]")),
    "gradients of the step before": (
        replace(QUADS, chunk=4),
        wrote("Gradients gradients;\n  gradients.begin(ctx);", "static Gradients gradients;"),
    ),
    "strips that are not waited for": (STREAMED, wrote("but<STAGES - 2>", "but<STAGES - 1>")),
    "no barrier before a strip is multiplied": (STREAMED, wrote("2>();\n    __syncthreads();", "2>();\n")),
    "a ring without an end": (STREAMED, wrote("stage + 1 == STAGES ? 0 : stage + 1", "min_of(stage + 1, STAGES - 1)")),
    "the rest of k as a whole strip": (STREAMED, wrote("constant<tail>()", "constant<DEPTH>()")),
    "strips of the tile before": (STREAMED, wrote(";\n        row = to_fetch % down * rows,", ";\n       ")),
    "blocks that do not wait for each other": (CLUSTER, wrote("BARRIER wait_for_cluster()", "BARRIER __syncthreads()")),
    "tiles of another block": (CLUSTER, wrote("(int tile = BLOCK_OF_TEAM;", "(int tile = 1 - BLOCK_OF_TEAM;")),
    "tiles that no block has": (CLUSTER, wrote("tile += BLOCKS_PER_TEAM", "tile += 2 * BLOCKS_PER_TEAM")),
    "numbers that each block stores": (CLUSTER, wrote("if (BLOCK_OF_TEAM == 0)", "if (true)")),
    "items that each block treats": (CLUSTER, wrote("int item = BLOCK_OF_TEAM * THREADS + RANK;", "int item = RANK;")),
    "a cluster that lacks a block": (CLUSTER, lambda launch: launch._replace(blocks=launch.blocks - 1)),
    "sums that no matrix has": (STREAMED, wrote("exact || (row + m < M && column + n < N)", "true")),
    "rows of a tile another distance apart": (BLOCK, wrote("item + i * tiles", "item + i")),
}


def faulty(layout: Layout, change: Callable[[Launch], Launch | None]) -> bool:
    """Whether training on a device with a fault is seen to be wrong."""
    own, cuts = small(), [3, 4]
    if layout.streamed:  # many tiles, and many strips of each
        own = own._replace(spec=gpubp.NetworkSpec((3, 70, 18, 2), "tanh"))
    elif layout.kind == Kind.GPU_WIDE:  # with matrices of one column
        own = own._replace(spec=gpubp.NetworkSpec((3, 5, 1, 2), "tanh"))
    expected = own.train(cuts=cuts)
    try:
        with playing(Broken(change), layout):
            state = own.train(cuts=cuts, engine=cuda)
    except WrongError:
        return True
    return bool(differences(state, expected))


QUICK = {  # of every kind of layout, and of a launch
    "a grid too small", "a barrier for some", "no barrier after a product",
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=[SLOW] * (name not in QUICK)) for name in FAULTS])
def test_a_planted_fault_is_found(name: str) -> None:
    assert faulty(*FAULTS[name])


@SLOW
@pytest.mark.parametrize("layout", LAID_OUT)
def test_without_a_fault_nothing_is_found(layout: Layout) -> None:
    assert not faulty(layout, lambda launch: launch._replace(text=flat(launch.text)))


@pytest.mark.parametrize(("factor", "wrong"), [("0x1.000002p0f", False), pytest.param("0x1.01p0f", True, marks=SLOW)])
def test_quotients_and_roots_are_exact_where_reciprocals_are_off_by_their_last_bit(factor: str, wrong: bool) -> None:
    """As a GPU's instructions for them are."""
    quotient, root = (wrote(f", {exact})", f", {exact} * {factor})") for exact in ("1 / x", "1 / sqrt_(x)"))
    assert faulty(QUADS, lambda launch: root(quotient(launch))) == wrong
