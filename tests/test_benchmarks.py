"""The benchmarks compare like with like: in float64 every contender trains to the same weights. No figure is judged."""

import argparse
import importlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils._pytree import tree_leaves

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

from benchmarks import __main__ as command
from benchmarks import (
    arguments,
    calls,
    compiled_peers,
    digits,
    harness,
    layouts,
    limits,
    phases,
    pool,
    sweeps,
    tables,
    whole,
)
from benchmarks.contenders import OURS, PEERS, excuse, parity, rows
from benchmarks.peers import AutogradBmm
from benchmarks.workloads import WORKLOADS, Workload, expand
from gpubp import cuda
from gpubp.engines import cpu, device, nvrtc

from .helpers import covering
from .playing import Player, playing
from .recorder import Recorder, like

FIRST = next(iter(OURS))
KINDS = ["W1-K1", "W2", "W3-N256", "W4-N64", "W5"]  # the others differ from these in N and K alone
JAX = ("jax_first", "jax_last")  # a second for each compilation
SLOW = ("compile_bmm", "compile_unrolled")  # five seconds for each of their compilations
SETTING = harness.Setting(rounds=2, seed=0, device="cpu", peak=1e9, patience=0.01)
TINY = ["--threads", "1", "--networks", "8", "--steps", "2", "--rounds", "2"]


def check(name, workload, optimizer):
    reason = excuse(name, WORKLOADS[workload], optimizer, "cpu")
    if reason:
        pytest.skip(f"{name}: {reason}")
    assert parity(WORKLOADS[workload], optimizer, ["eager", name])[name] < 1e-12


QUICK = [
    name for name in PEERS if name not in (*SLOW, *JAX, "eager", "cuda", "autograd_graph", "torch_tf32", "jax_tf32")
]


@pytest.mark.parametrize(("name", "workload", "optimizer"), covering(QUICK, KINDS, ["sgd", "adam"], meet=1))
def test_every_contender_trains_to_the_same_weights(name, workload, optimizer):
    check(name, workload, optimizer)


@pytest.mark.parametrize(("name", "workload", "optimizer"), [("jax_first", "W1-K1", "sgd"), ("jax_last", "W5", "adam")])
def test_both_orders_of_jax_train_to_the_same_weights(name, workload, optimizer):
    check(name, workload, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("workload", KINDS)
@pytest.mark.parametrize("name", [*SLOW, *JAX])
def test_a_compiled_contender_trains_to_the_same_weights(name, workload, optimizer):
    check(name, workload, optimizer)


def test_a_mixed_workload_is_its_topologies_one_after_the_other():
    workload = replace(WORKLOADS["W6-mixed"], networks=10, steps=2)
    result = harness.measure(workload, "adam", ["eager", "autograd_bmm", "modules"], SETTING)
    assert [part.widths[1] for part in workload.parts] == [8, 16, 32, 64, 128]
    assert {name: own["networks"] for name, own in result["contenders"].items()} == {"eager": 10, "autograd_bmm": 10}
    assert result["absent"] == {"modules": "trains a sample of one topology"}
    assert result["flop"] == sum(part.flop for part in workload.parts) / 5


@pytest.mark.parametrize(("workload", "optimizer"), [("W2", "sgd"), ("W2", "adam"), ("W5", "sgd"), ("W5", "adam")])
@pytest.mark.parametrize("name", ["autograd_graph", "torch_tf32"])
def test_the_recorded_contender_trains_to_the_same_weights(name, workload, optimizer, monkeypatch):
    """A CUDA graph of autograd's steps, played by the CPU."""
    recorder, precisions, forward = Recorder(), set(), AutogradBmm.forward

    def seen(*given):
        precisions.add(torch.get_float32_matmul_precision())
        return forward(*given)

    monkeypatch.setattr(AutogradBmm, "forward", seen)
    monkeypatch.setattr(cuda, "capture", recorder.capture)
    rows.cache_clear()
    assert parity(WORKLOADS[workload], optimizer, ["eager", name])[name] < 1e-12
    assert recorder.replays == [2]
    assert precisions == {"high" if name == "torch_tf32" else "highest"}
    assert torch.get_float32_matmul_precision() == "highest"
    rows.cache_clear()


class Away(Tensor):
    """Numbers that claim to lie on a GPU: torch refuses them together with those of a CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        if any(type(each) is Tensor and each.ndim for each in tree_leaves((args, kwargs))):
            raise RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu")
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.fixture
def away(monkeypatch):
    """The weights of all contenders claim to lie on cuda:0."""
    problem = Workload.problem

    def claimed(workload, optimizer, dtype=torch.float32, device="cpu"):
        own = problem(workload, optimizer, dtype)
        return own._replace(population=replace(own.population, params=own.population.params.as_subclass(Away)))

    def made(make):
        def contender(own):
            here = make(own._replace(population=replace(own.population, params=own.population.params.cpu())))
            params = here.params
            here.params = lambda: params().as_subclass(Away)
            return here

        return contender

    rows.cache_clear()
    monkeypatch.setattr(Workload, "problem", claimed)
    for name, peer in PEERS.items():
        monkeypatch.setitem(PEERS, name, peer._replace(make=made(peer.make), excuse=lambda *given: ""))
    monkeypatch.setattr(harness, "wait", lambda device: None)
    yield SETTING._replace(device="cuda:0")
    rows.cache_clear()


def test_weights_on_a_gpu_are_compared_at_home(away, monkeypatch):
    monkeypatch.setattr(harness, "BURST", 0.002)
    result = harness.measure(replace(WORKLOADS["W2"], networks=8), "sgd", ["eager", "autograd_bmm"], away)
    for own in result["contenders"].values():
        assert own["float32_share_of_way"] < harness.OTHER
        assert own["calls"] >= 1
        assert len(own["seconds_alone"]) == 2


def test_on_a_gpu_a_sample_is_as_many_calls_as_take_a_while(monkeypatch):
    class Sleeps:
        given = done = 0

        def call(self):
            self.given += 1

        def wait(self):
            self.done = self.given

    contender = Sleeps()
    monkeypatch.setattr(harness, "wait", lambda device: None)
    clock = argparse.Namespace(perf_counter=lambda: 0.002 * contender.given, sleep=lambda seconds: None)
    monkeypatch.setattr(harness, "time", clock)
    assert harness.length(contender, "cuda:0") == 25
    assert harness.length(contender, "cpu") == 1
    before = contender.given
    harness.burst(contender, 7)()
    assert contender.done == contender.given == before + 7, "to the end of the last call"


def test_products_rounded_to_tf32_are_another_arithmetic_and_nobodys_peer(monkeypatch):
    def rounded(tensor):
        bits = (tensor.detach().view(torch.int32) + 0x1000) & ~0x1FFF
        return tensor + (bits.view(torch.float32) - tensor).detach()

    class Rounded(AutogradBmm):
        def forward(self, inputs, target):
            if inputs.dtype == torch.float32:
                inputs, whole = rounded(inputs), self.layers
                self.layers = [(rounded(weight), bias) for weight, bias in whole]
                loss = super().forward(inputs, target)
                self.layers = whole
                return loss
            return super().forward(inputs, target)

    monkeypatch.setitem(PEERS, "vmap_grad", PEERS["vmap_grad"]._replace(make=Rounded))
    rows.cache_clear()
    for name, optimizer in (("W2", "sgd"), ("W5", "adam"), ("W6-mixed", "adam")):
        workload = replace(WORKLOADS[name], networks=20)
        result = harness.measure(workload, optimizer, ["eager", "autograd_bmm", "vmap_grad"], SETTING)
        exact = {each: own["exact"] for each, own in result["contenders"].items()}
        assert exact == {"eager": True, "autograd_bmm": True, "vmap_grad": False}
        assert result["best_peer"]["name"] == "autograd_bmm"
        console = Console(file=io.StringIO(), width=140)
        console.print(tables.rates(name, result))
        assert console.file.getvalue().count("other arithmetic") == 1
    rows.cache_clear()


def test_what_is_asked_to_multiply_in_tf32_is_named_so_and_exact_nowhere():
    assert {name for name, peer in PEERS.items() if not peer.exact} == {"torch_tf32", "jax_tf32"}
    for name in ("torch_tf32", "jax_tf32"):
        assert excuse(name, WORKLOADS["W2"], "sgd", "cpu") == "runs on a GPU only"


@pytest.mark.parametrize("name", ["jax_last", "jax_tf32"])
def test_jax_is_told_how_to_multiply(name):
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    seen = []

    class Seen(jax_peers().Jax):
        def _one(self, *given):
            seen.append(jax_peers().jax.config.jax_default_matmul_precision)
            return super()._one(*given)

    make = PEERS[name].make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_peers(), "Jax", Seen)
        contender = make(WORKLOADS["W2"].tiny().problem("sgd"))
    contender.call()
    contender.wait()
    assert set(seen) == {"tensorfloat32" if name == "jax_tf32" else "highest"}


def jax_peers():
    return importlib.import_module("benchmarks.jax_peers")


@pytest.mark.parametrize(
    ("workload", "optimizer", "name"),
    [("W5", "adam", "compile_bmm"), ("W2", "sgd", "compile_bmm"), ("W1-K1", "sgd", "compile_unrolled")],
)
def test_compiled_steps_are_recorded_by_hand(workload, optimizer, name, monkeypatch):
    """What torch.compile would make of a step runs as it is; the recording is the CPU's."""
    recorder = Recorder()
    monkeypatch.setattr(cuda, "capture", recorder.capture)
    monkeypatch.setattr(compiled_peers, "RECORDED", ("cpu",))
    monkeypatch.setattr(compiled_peers, "_STEPS", {})
    monkeypatch.setattr(torch, "compile", lambda step, **settings: step)
    monkeypatch.setitem(PEERS, name, PEERS[name]._replace(excuse=lambda *given: ""))
    rows.cache_clear()
    assert parity(WORKLOADS[workload], optimizer, ["eager", name])[name] < 1e-12
    assert recorder.replays == [2]
    rows.cache_clear()


def test_a_peer_that_fails_is_named_and_an_engine_that_fails_is_not_borne(monkeypatch):
    def fails(problem):
        raise RuntimeError("no kernel image is available\nfor execution")

    rows.cache_clear()
    for name in ("vmap_grad", "eager"):
        monkeypatch.setitem(PEERS, name, PEERS[name]._replace(make=fails))
    result = harness.measure(WORKLOADS["W2"].tiny(), "sgd", ["autograd_bmm", "vmap_grad"], SETTING)
    assert result["absent"] == {"vmap_grad": "fails: RuntimeError: no kernel image is available"}
    with pytest.raises(RuntimeError, match="no kernel image"):
        harness.measure(WORKLOADS["W2"].tiny(), "sgd", ["eager", "autograd_bmm"], SETTING)
    rows.cache_clear()


def test_networks_that_find_no_place_on_a_gpus_chip_are_not_given_to_engine_cuda():
    with playing(Player()):
        reason = excuse("cuda", WORKLOADS["W4-N64"], "sgd", "cuda:0")
        assert excuse("cuda", WORKLOADS["W2"], "sgd", "cuda:0") == ""
    assert 'engine "cuda": networks 784-128-10' in reason
    assert "a block has 232,448" in reason


def test_kernels_are_compiled_anew_unless_a_cache_is_named(monkeypatch):
    monkeypatch.delenv("GPUBP_CACHE", raising=False)
    with harness.own_kernels():
        folder = Path(os.environ["GPUBP_CACHE"])
        assert list(folder.iterdir()) == []
    assert "GPUBP_CACHE" not in os.environ
    assert not folder.exists()
    monkeypatch.setenv("GPUBP_CACHE", "given")
    with harness.own_kernels():
        assert os.environ["GPUBP_CACHE"] == "given"
    assert os.environ["GPUBP_CACHE"] == "given"


def test_parity_sees_a_contender_with_another_learning_rate(monkeypatch):
    def wrong(problem):
        return PEERS["autograd_bmm"].make(problem._replace(lr=problem.lr * 1.001))

    monkeypatch.setitem(PEERS, "modules", PEERS["modules"]._replace(make=wrong))
    rows.cache_clear()
    with pytest.raises(AssertionError, match="modules, sgd"):
        parity(WORKLOADS["W2"], "sgd", ["eager", "modules"])
    rows.cache_clear()


@pytest.mark.parametrize(("workload", "flop"), [("W1-K1", 64), ("W3-N256", 3.88e6), ("W4-N64", 26.4e6), ("W5", 652e3)])
def test_model_flop_are_those_of_the_formula(workload, flop):
    assert WORKLOADS[workload].flop == pytest.approx(flop, rel=2e-3)


def test_a_name_stands_for_all_workloads_that_begin_with_it():
    assert expand(["W3", "W1-K64"]) == ["W1-K64", "W3-N256", "W3-N10000"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workload", "W9"], "W9"),
        (["--peer", "nobody"], "nobody"),
        (["--rounds", "0"], "whole number"),
        (["sweep", "--over", "colour"], "colour"),
        (["sweep", "--workload", "W2", "W3"], "one workload"),
        (["sweep", "--workload", "W5b"], "one workload"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_a_wrong_argument_is_named(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        arguments.parse(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(PEERS, "tabm_ensemble", PEERS["tabm_ensemble"]._replace(needs=("no_such_package",)))
    result = harness.measure(WORKLOADS["W2"].tiny(), "sgd", ["eager", "tabm_ensemble"], SETTING)
    assert list(result["contenders"]) == ["eager"]
    assert result["absent"] == {"tabm_ensemble": "not installed: no_such_package"}


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
    words = ["--workload", "W2", "real", "--peer", "autograd_bmm", "--optimizer", "sgd", "--out", str(tmp_path)]
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
    assert set(report["real_case"]) == {"W2", "W3-N256", "W4-N64"}
    assert (tmp_path / "cpu.png").stat().st_size
    assert (tmp_path / "cpu-roofline.png").stat().st_size
    assert "Beside the best peer" in capsys.readouterr().out


def test_what_was_measured_before_something_failed_is_written(tmp_path, quick_limits, monkeypatch):
    def measure(workload, *rest):
        if workload.widths != WORKLOADS["W2"].widths:
            raise RuntimeError("no kernel image is available")
        return harness.measure(workload, *rest)

    monkeypatch.setattr(command, "measure", measure)
    words = ["--workload", "W2", "W5", "--peer", "autograd_bmm", "--optimizer", "sgd", "--out", str(tmp_path)]
    with pytest.raises(RuntimeError, match="no kernel image"):
        command.main([*TINY, *words])
    report = json.loads((tmp_path / "cpu.json").read_text())
    assert [result["workload"] for result in report["results"]] == ["W2"]


RARE = [pytest.param(name, marks=pytest.mark.slow) for name in sweeps.VALUES if name not in ("width", "steps_per_call")]


@pytest.mark.parametrize("over", ["width", "steps_per_call", *RARE])
def test_a_sweep_varies_one_thing_and_says_who_was_left_out(over, tmp_path, quick_limits, monkeypatch, capsys):
    monkeypatch.setitem(sweeps.VALUES, over, (2, 4))
    monkeypatch.setattr(sweeps, "late", lambda workload, last, patience: {"modules": "too late"} if last else {})
    words = ["sweep", "--over", over, "--workload", "W2", "--peer", "modules", "--out", str(tmp_path)]
    command.main([*TINY, *words])
    report = json.loads((tmp_path / f"sweep-{over}.json").read_text())
    assert [point["value"] for point in report["results"]] == [2, 4]
    assert "modules" in report["results"][0]["contenders"]
    assert report["results"][1]["absent"] == {"modules": "too late"}
    assert (tmp_path / f"sweep-{over}.png").stat().st_size
    assert "modules: too late" in capsys.readouterr().out


@pytest.mark.skipif(not limits.compiler(), reason="no C++ compiler")
def test_the_layouts_are_raced_to_the_same_bits(tmp_path, quick_limits, monkeypatch, capsys):
    small = {"AROUND": ((3, 2, 66),), "HIDDEN": (4,), "ALONE": (((3, 4, 2), 2),), "TINY": (((2, 2, 2), 1),)}
    for name, value in {**small, "NETWORKS": 20, "MOST_STEPS": 2}.items():
        monkeypatch.setattr(layouts, name, value)
    before = cpu.LAYOUT, layouts.rule.WORTH
    command.main(["layouts", "--quick", "--threads", "2", "--rounds", "2", "--out", str(tmp_path)])
    assert (cpu.LAYOUT, layouts.rule.WORTH, torch.get_num_threads()) == (*before, 2)
    report, said = json.loads((tmp_path / "layouts.json").read_text()), capsys.readouterr().out
    (case,) = report["cases"]
    assert list(case["seconds"]) == ["networks, 66", "networks, 33", "outputs, 66", "outputs, 33"]
    assert case["taken"] in case["seconds"]
    assert {len(each) for each in case["seconds"].values()} == {2}
    assert report["excess"]["most"] == case["excess"] >= 0
    assert [set(result["seconds"]) for result in report["sharing"]] == [{"one thread", "shared"}]
    assert [set(result["seconds"]) for result in report["registers"]] == [{"one register", "three registers"}]
    for words in (
        "3 inputs, 2 outputs, batch 66",
        "In 1 cases the rule's layout",
        "One network on 2 threads",
        "Three reg",
    ):
        assert words in said


@pytest.mark.skipif(not limits.compiler(), reason="no C++ compiler")
def test_layouts_that_differ_in_a_bit_are_not_compared(monkeypatch):
    class Other(layouts.LaidOut):
        def params(self):
            return super().params() * (1 + self.layout.wide)

    monkeypatch.setattr(layouts, "LaidOut", Other)
    with pytest.raises(AssertionError, match="the layouts differ in a bit"):
        layouts.against_the_rule(layouts.workload((3, 4, 2), 2, networks=8), "sgd", SETTING)


@pytest.mark.skipif(not limits.compiler(), reason="no C++ compiler")
def test_calls_after_torchs_are_timed_beside_one_at_rest(tmp_path, quick_limits, monkeypatch, capsys):
    monkeypatch.setattr(pool, "WORKLOAD", replace(pool.WORKLOAD, networks=20))
    command.main(["pool", "--threads", "1", "--rounds", "2", "--out", str(tmp_path)])
    calls = json.loads((tmp_path / "pool.json").read_text())["calls"]
    assert list(calls) == ["at rest", "first", "second", "hundredth"]
    assert all(len(own["seconds"]) == 2 and own["ms"] > 0 for own in calls.values())
    assert calls["at rest"]["over_rest"]["median"] == 1
    assert "hundredth" in capsys.readouterr().out


def test_calls_of_one_step_are_timed_back_to_back(tmp_path, quick_limits, monkeypatch):
    monkeypatch.setattr(calls, "CASES", {name: replace(each, networks=2) for name, each in calls.CASES.items()})
    command.main(["calls", "--threads", "1", "--rounds", "2", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "calls.json").read_text())["calls"]
    assert [own["widths"] for own in found] == [[2, 2, 2], [64, 32, 10]]
    assert all(own["engine"] == FIRST and own["us"].keys() == {"whole"} and own["us"]["whole"] > 0 for own in found)


def test_host_and_device_are_told_apart_where_calls_wait_in_a_queue(monkeypatch):
    """A call takes the host 1 ms, the device 2."""
    clock = {"host": 5.0, "device": 5.0}

    def call():
        clock["host"] += 0.001
        clock["device"] += 0.002

    class Event:
        def __init__(self, device, *, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock["device"]

        def synchronize(self):
            clock["host"] = clock["device"]

        def elapsed_time(self, other):
            return 1e3 * (other.at - self.at)

    monkeypatch.setattr(torch, "Event", like(Event, Event))
    monkeypatch.setattr(calls, "SIDE", 8)
    monkeypatch.setattr(calls, "time", argparse.Namespace(perf_counter=lambda: clock["host"]))
    found = calls._apart(argparse.Namespace(call=call), 20, 1000.0, "cpu")
    assert found == {"host": pytest.approx(1000), "device": pytest.approx(2000)}


def test_what_is_inside_another_part_counts_there_alone():
    clock = phases.Clock(limits.time.monotonic() - 5)
    inner = clock.timed("evaluation", lambda place: limits.time.sleep(0.1))
    place = argparse.Namespace(shards=[argparse.Namespace(device=torch.device("cpu"))])
    outer = clock.timed("writing", lambda: (limits.time.sleep(0.05), inner(place)))
    outer()
    outer()
    assert 5 <= clock.spent["start"] < 5.05
    assert clock.spent["evaluation"] == pytest.approx(0.2, abs=0.04)
    assert clock.spent["writing"] == pytest.approx(0.1, abs=0.04)
    assert clock.spent["steps"] == 0


def test_a_run_of_the_command_line_is_told_part_by_part_and_one_that_fails_with_its_words():
    words = ("--data", "xor", "--epochs", "2", "--networks", "8", "--engine", "eager")
    found = whole.runs(words, 1, 1, "cpu")
    for parts in (found["first"], found["median"]):
        assert min(parts.values()) > 0
        assert sum(parts.values()) == pytest.approx(2 * parts["total"])
    assert found["total_over_steps"] > 1
    with pytest.raises(RuntimeError, match=r"ended with \d:\nerror: --networks 0"):
        whole.run((*words, "--networks", "0"), 1, "cpu")


@pytest.mark.parametrize(
    "case", [whole.CASES[0], *[pytest.param(case, marks=pytest.mark.slow) for case in whole.CASES[1:]]]
)
def test_a_whole_training_is_the_same_in_jax(case, monkeypatch):
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    result = whole.beside_jax(case._replace(networks=9), SETTING)
    assert max(result["share_of_way"].values()) < whole.FAR
    assert {name: len(each) for name, each in result["busy"].items()} == {"gpubp": 2, "jax_first": 2, "jax_last": 2}
    monkeypatch.setattr(whole.Case, "problem", lambda own, made=whole.Case.problem: made(own)._replace(lr=0.0101))
    with pytest.raises(AssertionError, match="not the same training"):
        whole.beside_jax(case._replace(networks=9), SETTING)


def test_a_call_that_would_take_too_long_is_foreseen():
    workload = WORKLOADS["W2"].tiny()
    work = workload.networks * workload.steps * workload.flop
    assert sweeps.late(workload, {"eager": 2 / work, "vmap_grad": 0.5 / work}, 1.0).keys() == {"eager"}


def test_impatience_ends_the_rounds_of_the_slow_alone():
    slow, fast = [], []
    setting = SETTING._replace(rounds=6, patience=0.02)
    seconds = harness.interleave(
        {"a": lambda: fast.append(1), "slow": lambda: (slow.append(1), limits.time.sleep(0.03)), "b": fast.clear},
        setting,
    )
    assert len(seconds["slow"]) == harness.FEWEST
    assert len(seconds["a"]) == len(seconds["b"]) == 6


def test_the_peak_comes_from_a_compiled_loop_or_from_a_product(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    monkeypatch.setitem(limits.SIDE, "cpu", 64)
    if limits.compiler():
        assert limits.peak("cpu", 1)[0] > 1e8
    monkeypatch.setattr(limits, "compiler", lambda: None)
    assert limits.peak("cpu", 1)[1] == "a large matrix product"


def test_the_peak_of_a_gpu_counts_what_was_launched(monkeypatch):
    launched, left = [], []

    def launch(given, blocks, threads, shared, structures, device):
        assert (given is function, threads, shared) == (True, limits.BLOCK, 0)

        def start():
            launched.append(blocks)
            left[0].fill_(limits.CHAINS)
            limits.time.sleep(0.002)

        return start

    def empty(count, device, make=torch.empty):
        left.append(make(count))
        return left[0]

    function = device.Function("handle", 6)
    fakes = {"limits": lambda where: Player().found, "load": lambda *given: function}
    for name, fake in fakes.items():
        monkeypatch.setattr(device, name, like(getattr(device, name), fake))
    monkeypatch.setattr(limits.torch, "empty", empty)
    monkeypatch.setattr(device, "Launch", like(device.Launch, launch))
    monkeypatch.setattr(nvrtc, "cubin", lambda text, arch: b"")
    monkeypatch.setattr(limits, "wait", lambda device: None)
    monkeypatch.setattr(limits, "SECONDS", 0.01)
    rate, of = limits.peak("cuda:0", 1)
    work = 2 * limits.CHAINS * limits.UNROLLED * limits.TURNS * limits.BLOCK * limits.BLOCKS * 6
    assert of == "a loop of multiply-adds"
    assert 0.2 * work / 0.002 < rate <= work / 0.002
    assert set(launched) == {6 * limits.BLOCKS}


def test_the_digits_are_given_the_epochs_that_reach_the_accuracy():
    assert digits.first_epoch([0.2, 0.96, 0.94], "gpubp") == 2
    with pytest.raises(AssertionError, match=r"scikit-learn: median accuracy 0\.900"):
        digits.first_epoch([0.2, 0.9], "scikit-learn")


@pytest.mark.slow
def test_the_digits_race_reports_both(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(digits, "PILOT", 4)
    result = digits.race(FIRST, 8, 4, 2, SETTING)
    for own in result["contenders"].values():
        assert own["median_accuracy"] > 0.9
        assert own["steps"] == pytest.approx(own["epochs"] * 23, abs=own["epochs"])
