"""Products on tensor cores, by name: on a GPU that the CPU plays they have the bits of the CPU's kernel with operands
that are rounded so; faults that are planted are found; and where they cannot be had, that is said."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

import gpubp
from benchmarks import proofs
from benchmarks.precision import rounded
from gpubp.checkpoints import checkpoint
from gpubp.engines import choose, cpu, cuda, general
from gpubp.engines.key import Key
from gpubp.engines.layout import Kind, Layout
from gpubp.errors import ConfigError, EngineError
from gpubp.runs.design import Design
from gpubp.settings.recipe import PRECISIONS
from gpubp.state import TrainState
from gpubp.system.ambient import HOME
from gpubp.verify.subject import scaled_down

from .commands import Capture, error
from .helpers import compiled, differences, failing, population, samples, train  # noqa: F401
from .playing import H100, Player, WrongError, machine, playing
from .test_gpu import Broken, wrote

SPEC = gpubp.NetworkSpec((18, 19, 3), "tanh")  # tiles of several eights, and parts of them
FEW = [0, 1, 2]
WIDE = Layout(Kind.GPU_WIDE, registers=2, threads=64, accumulators=16, cols=8)
STREAMED = replace(WIDE, kind=Kind.GPU_STREAMED, accumulators=32)
LAYOUTS = {
    "tf32": {"in chunks": replace(WIDE, chunk=5), "streamed": replace(STREAMED, threads=128, chunk=5)},
    "3xtf32": {"whole, slots outside": replace(WIDE, threads=32, slots_apart=True), "streamed": STREAMED},
}
SLOW = pytest.mark.slow


def data() -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, 40, dtype=torch.float32))


def by(engine: Any, precision: str, ids: list[int] = FEW, cuts: list[int] | None = None) -> TrainState:
    """Networks by an engine."""
    settings = {"optimizer": "adam", "lr": 0.02, "batch_size": 12, "steps": 2, "precision": precision}
    return train(population(SPEC, ids=ids, dtype=torch.float32), data(), cuts, engine=engine, **settings)


def laid_out(precision: str, name: str) -> Layout:
    return replace(LAYOUTS[precision][name], tf32=PRECISIONS[precision])


@pytest.mark.parametrize(
    ("precision", "name"),
    [pytest.param(precision, name, marks=[SLOW] if (precision == "tf32") == (name == "streamed") else [])
     for precision, names in LAYOUTS.items() for name in names],
)  # fmt: skip
def test_a_played_gpu_has_the_bits_of_the_cpus_kernel_with_rounded_operands(precision: str, name: str) -> None:
    with rounded(precision):
        expected = by(cpu, precision)
    with playing(Player(), laid_out(precision, name)):
        assert not differences(by(cuda, precision), expected)
        for ids, cuts in (([1], None), (FEW[::-1], [1, 1])):
            assert not differences(by(cuda, precision, ids, cuts), expected, [ids.index(1)], [1]), (ids, cuts)
    exact = by(cpu, "exact").population.params
    far = (expected.population.params - exact).abs().max()
    assert 1e-4 < far < 1e-2 if precision == "tf32" else 0 < far < 1e-4


A = "add_products(tile, left, right, &Operand::big, &Operand::big);"
FAULTS = {
    "a part of a warp multiplies": ("tf32", "in chunks", A, f"if (LANE > 7) {A}"),
    "operands that are not rounded": ("tf32", "in chunks", "bits + 0x1000", "bits"),
    "columns of a neighbour": ("3xtf32", "streamed", "LANE % 4 * entries", "LANE % 4"),
    "rows in two orders": ("tf32", "in chunks", "start + (entries == 1 ? row() : LANE / 4)", "start + LANE / 4"),
    "neighbours of k that are none": ("tf32", "in chunks", "apart = paired ? 1 : 4", "apart = 4"),
    "one number read for several sums": ("tf32", "in chunks", "found[i] = epilogue", "found[0] = epilogue"),
    "a big part with more digits": ("3xtf32", "streamed", "big & ~0x1fffu", "big"),
    "no small part": ("3xtf32", "streamed", "TF32 == 3 ? to_tf32", "TF32 == 2 ? to_tf32"),
    "terms in another order": (
        "3xtf32", "streamed", "&Operand::small, &Operand::big", "&Operand::big, &Operand::small"),
    "k and rows exchanged": ("tf32", "in chunks", "{above[0].*of_left, below[0]", "{above[1].*of_left, below[0]"),
    "numbers behind the last k": ("tf32", "in chunks", "return first_k() +", "return true || first_k() +"),
    "a strip of another pitch": ("3xtf32", "streamed", "Matrix<turned>> InShared", "Matrix<turned + 1>> InShared"),
}  # fmt: skip


@SLOW
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    precision, layout, old, new = FAULTS[name]
    with rounded(precision):
        expected = by(cpu, precision)
    try:
        with playing(Broken(wrote(old, new)), laid_out(precision, layout)):
            found = by(cuda, precision)
    except WrongError:
        assert name == "a part of a warp multiplies"
    else:
        assert differences(found, expected)


def test_other_precisions_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="precision 'bf16' is unknown; allowed: 3xtf32, exact, tf32"):
        gpubp.TrainConfig(steps=1, precision="bf16")
    with pytest.raises(ConfigError, match="precision"):
        [*Design.of([{"widths": "3,2", "steps": 1, "precision": "TF32"}]).planned(0, torch.float32, None)]


@pytest.mark.parametrize(
    ("engine", "device", "dtype", "what"),
    [("auto", "cpu", torch.float32, "networks on cpu"), ("eager", "cuda:0", torch.float32, "engine 'eager'"),
     ("cpu", "cpu", torch.float32, "engine 'cpu'"), ("auto", "cuda:0", torch.float64, "dtype float64")],
)  # fmt: skip
def test_where_there_are_no_tensor_cores_one_sentence_says_so(
    engine: str, device: str, dtype: torch.dtype, what: str
) -> None:
    config = gpubp.TrainConfig(steps=1, precision="3xtf32")
    with pytest.raises(EngineError, match=r"precision '3xtf32' is of tensor cores.* no CPU reproduces") as caught:
        choose(engine, SPEC, config, torch.device(device), dtype)
    assert str(caught.value).endswith(f"it cannot be had with {what}")


def test_auto_takes_no_other_engine_for_products_that_only_cuda_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "why", failing(EngineError("no driver")))
    config, gpu = gpubp.TrainConfig(steps=1, precision="tf32"), torch.device("cuda:0")
    with pytest.raises(EngineError, match="no driver"):
        choose("auto", SPEC, config, gpu)
    assert choose("auto", SPEC, replace(config, precision="exact"), gpu).name == "eager"


@pytest.mark.parametrize(
    ("widths", "batch", "kind"),
    [((2, 2, 2), 1, Kind.GPU_THREAD), ((8, 16, 1), 32, Kind.GPU_WIDE), ((64, 32, 10), 64, Kind.GPU_WIDE),
     ((784, 128, 10), 64, Kind.GPU_STREAMED)],
)  # fmt: skip
def test_a_block_has_whole_warps_and_a_thread_no_tensor_cores(widths: tuple[int, ...], batch: int, kind: Kind) -> None:
    spec = gpubp.NetworkSpec(widths)
    with playing(Player()):
        for precision, terms in PRECISIONS.items():
            recipe = gpubp.TrainConfig(batch_size=batch, steps=1, precision=precision).recipe(spec)
            found = cuda.kernel(Key.to_come(spec, recipe, torch.float32, None), H100)
            layout = found.program.layout
            assert layout.tf32 == (terms if kind.block else 0)
            if terms:
                assert layout.kind == kind
                assert layout.threads % 32 == 0
                assert found.program.plan.shared <= H100.block
                assert f"precision {precision!r}" in found.reason
                assert ("changes nothing" in found.reason) == (not kind.block)


def test_a_run_says_where_a_cpu_would_have_to_reproduce_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    design = [{"precision": "tf32"}, {"precision": "tf32"}, {}]
    spec = {"widths": "3,5,2", "hidden": "tanh", "steps": 4, "batch_size": 4, "evaluate_every": 2}
    own = gpubp.Dataset(*samples(gpubp.NetworkSpec((3, 5, 2)), 20, dtype=torch.float32))
    with machine():
        result = gpubp.train_many(design, own, device="cuda:0", run_dir=tmp_path, **spec)
        assert gpubp.resume(tmp_path, own, steps=6, device="cuda:0").engine == "cuda"
    assert result.table["precision"].to_pylist() == ["tf32", "tf32", "exact"]
    sentence = "precision 'tf32' is of tensor cores.* no CPU reproduces"
    with pytest.raises(EngineError, match=f'{sentence}.*; but this run started with engine "cuda"'):
        gpubp.resume(tmp_path, own)
    with pytest.raises(EngineError, match=sentence):
        gpubp.replay(tmp_path, 1, data=own)
    with general.only(True):
        assert gpubp.replay(tmp_path, 2, data=own).same, "the exact one is a CPU's"
    about = scaled_down(Design.of(tmp_path / "design.parquet"), device=HOME).about
    assert [
        each for each in about if each.startswith("in precision exact: that of the run, tf32, has bits that no CPU")
    ]


def test_older_checkpoints_are_exact(tmp_path: Path) -> None:
    for folder in (Path(__file__).parent / "checkpoints").iterdir():
        shutil.copytree(folder, tmp_path / folder.name / "checkpoint")
        for saved in checkpoint.load(tmp_path / folder.name, HOME).populations:
            assert (saved.config.precision, saved.state.recipe.precision) == ("exact", "exact")


def test_the_command_line_names_it(tmp_path: Path, capsys: Capture) -> None:
    flags = f"--data wine --networks 2 --epochs 1 --precision tf32 --device cpu --run-dir {tmp_path}"
    assert "no CPU reproduces: it cannot be had with networks on cpu" in error(f"train {flags}", capsys)


@SLOW
def test_the_proofs_on_a_device_tell_the_precisions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """tf32 and exact in place of each other are found."""
    monkeypatch.setattr(proofs, "SPECS", {"8-16-1": proofs.SPECS["8-16-1"]})
    monkeypatch.setattr(proofs, "SETTINGS", {"adam": {"optimizer": "adam", "lr": 0.01}})
    found = {}
    for precision in PRECISIONS:
        with rounded(precision):
            chosen, everyone = proofs.cases(precision), range(proofs.COUNT)
            found[precision] = [case.train("cpu", "cpu", everyone) for case in chosen][-1]
    exact = proofs.Case.train
    for played in PRECISIONS:

        def train(case: proofs.Case, engine: str, *rest: Any, played: str = played, **more: Any) -> TrainState:
            return found[played] if engine == "cuda" else exact(case, engine, *rest, **more)

        with monkeypatch.context() as patch:
            patch.setattr(proofs.Case, "train", train)
            assert [name for name in proofs.FAR if not proofs.on_cores("cuda", "cpu", name).differing] == [
                name for name in proofs.FAR if name == played
            ]
