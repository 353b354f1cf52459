"""scripts/gpu_check.py: everything that needs a GPU, part by part, the most important first. check.py runs the parts;
the report has the reason for everything that was not run."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from gpubp.engines import ENGINES

from . import calls, machine, proofs, sweeps, tables, whole
from .check import ABSENT, FAILED, PASSED, ROOT, Check, Outcome, Part, Step, write
from .contenders import OURS, excuse, ours
from .harness import Setting, measure
from .workloads import WORKLOADS, Workload

KINDS = {  # of peers, the most important first
    "peers": ("autograd_graph", "jax_first", "jax_last", "autograd_bmm"),
    "tf32": ("cuda_tf32", "cuda_3xtf32", "autograd_graph_tf32", "jax_tf32"),
    "others": ("autograd_bmm_fused", "vmap_grad", "tabm_ensemble", "tabpack"),
    "torch.compile": ("compile_bmm", "compile_unrolled"),
}
MAIN = ("W1-K64", "W5", "W3-N256", "W4-N64", "W2", "W6-mixed")  # one of each kind, with its first optimizer
ROUNDS, PATIENCE, SEED = 7, 1.0, 0
POINT = 20.0  # seconds that must remain to start a point of the sweep
PROCESSES = 8  # of pytest at most: each has a context on the GPU, some 0.5 GB
HANGS = 60  # seconds of a test
PYTEST = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "no:cacheprovider", "-q", "-rsfE",
          f"-ofaulthandler_timeout={HANGS}", "-ofaulthandler_exit_on_timeout=true"]  # fmt: skip
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever else is installed may warn, and a warning is an error


def parts(check: Check) -> dict[str, Part]:
    """What is done on `check.devices`, the most important first: bits, the tests for a GPU, whole runs, every kind of
    workload against the best peers, the other proofs, the suite, then the rest. torch.compile comes last: a failed
    capture may end all captures of its process."""
    first = check.devices[0]
    rows = [(name, optimizer) for name, each in WORKLOADS.items() for optimizer in each.optimizers]
    main = [(name, WORKLOADS[name].optimizers[0]) for name in MAIN if name in WORKLOADS]
    rest = [row for row in rows if row not in main]
    lines = whole.command_lines(first)
    processes = str(min(PROCESSES, os.cpu_count() or 1))
    suite = ["-n", processes, "--device", first, "-m", "not slow and not gpu"]

    def race(kind: str, *given: Sequence[tuple[str, str]], least: float = 20) -> Part:
        """Workloads and their optimizers against peers of a kind."""
        return Part([
            Step(f"{name}, {optimizer}, {kind}", partial(raced, check, name, WORKLOADS[name], optimizer, kind), least)
            for each in given for name, optimizer in each
        ], 1 / 2, proves=False)  # fmt: skip

    return {
        "bits": Part([
            Step("machine", partial(facts, check), 10),
            Step("bits of engine cuda against engine cpu", partial(bits, first), 10),
            Step("evaluations of engine cuda against engine cpu", partial(bits, first, proofs.equal_figures), 10),
        ]),
        "tests": Part([Step("tests marked gpu", partial(tests, check, ["-n", "1", "-m", "gpu"]), 30)]),
        "runs": Part([
            Step("calls of one step", partial(called, check), 15),
            *(Step(name, partial(ran, check, name, words), 20) for name, words in lines.items()),
        ], proves=False),
        "peers": race("peers", main),
        "tensor cores": race("tf32", main),
        "proofs": Part([
            step for engine in ("cuda", "eager") if engine in ENGINES for step in (
                Step(f"{engine}: near eager on the CPU", lambda e=engine: proven(proofs.nearness(e, first)), 10),
                Step(f"{engine}: independence", lambda e=engine: proven(proofs.independence(e, first)), 10),
                Step(f"{engine}: number of GPUs", partial(shared, engine, check.devices), 10),
            )
        ] + [
            step for name in proofs.FAR if "cuda" in ENGINES for step in (
                Step(f"{name}: near exact", lambda p=name: proven(proofs.on_cores("cuda", first, p)), 10),
                Step(f"{name}: independence", lambda p=name: proven(proofs.independence("cuda", first, p)), 10),
            )
        ]),
        "whole trainings": Part([
            Step(f"whole training {number}", partial(beside, check, case), 20)
            for number, case in enumerate(whole.CASES, 1)
        ], proves=False),
        "suite": Part([Step(f"suite on {first}", partial(tests, check, suite), 30)]),
        "more peers": race("peers", rest),
        "more on tensor cores": race("tf32", rest),
        "sweep": Part([Step("sweep over batch_size", partial(swept, check, KINDS["peers"]), 40)], 1 / 2, False),
        "other peers": race("others", main, rest),
        "torch.compile": race("torch.compile", main, rest, least=40),
    }  # fmt: skip


def tests(check: Check, chosen: Sequence[str]) -> Outcome:
    """Run pytest with these arguments, and report its output. Shortly before this process's deadline it is interrupted,
    so that it ends with its results; the process of a hanging test is killed, and pytest-xdist starts another."""
    patience = 0.7 * (check.end - time.monotonic())
    limit = ["timeout", "--foreground", "--signal=INT", "--kill-after=30", str(patience)]
    done = subprocess.run(
        [*limit, *PYTEST, *chosen], cwd=ROOT, env={**os.environ, **ALONE}, capture_output=True, text=True
    )
    lines = done.stdout.strip().splitlines() or [done.stderr.strip() or "no output of pytest"]
    listed = [
        each for each in lines if each.startswith(("SKIPPED", "FAILED", "ERROR", "calls taken", "no calls taken"))
    ]
    fine = done.returncode in (0, 124) and "passed" in lines[-1] and not re.search("failed|error", lines[-1])
    late = f"; no time for the rest after {patience:.0f} s" if done.returncode == 124 else ""
    return Outcome(PASSED if fine else FAILED, lines[-1].strip("= ") + late, listed)


def facts(check: Check) -> Outcome:
    """The machine, its peak and its bandwidth; later steps need them."""
    check.report["machine"] = known = machine.facts(check.devices[0], check.report["threads"])
    check.report |= {"first": ours(check.devices[0]), "rounds": ROUNDS, "seed": SEED, "patience": PATIENCE}
    known["tf32"] = torch.get_float32_matmul_precision()
    said = f"{known['device']}, {known['peak_gflops']:,.0f} GFLOP/s ({known['peak_of']}), "
    said += f"{known['matmul_peak_gflops']:,.0f} of a large matrix product, "
    return Outcome(PASSED, f"{said}{known['copy_gbytes_per_second']:,.0f} GB/s")


def proven(proof: proofs.Proof) -> Outcome:
    """A proof as an outcome."""
    status = FAILED if proof.differing or not proof.compared else PASSED
    return Outcome(status, f"{proof.compared} comparisons, {len(proof.differing)} differ", proof.differing)


def bits(device: str, proof: Callable[..., proofs.Proof] = proofs.equal_bits) -> Outcome:
    """Bits of engine cuda against engine cpu."""
    for name in ("cuda", "cpu"):
        if name not in ENGINES:
            return Outcome(ABSENT, f"this gpubp has no engine {name}")
    return proven(proof("cuda", device, "cpu"))


def shared(engine: str, devices: Sequence[str]) -> Outcome:
    """One GPU against several."""
    if len(devices) < 2:
        return Outcome(ABSENT, "this machine has one GPU")
    return proven(proofs.shares(engine, devices))


def setting(check: Check, rounds: int = ROUNDS) -> Setting:
    """How to measure, with the machine's peak."""
    return Setting(rounds, SEED, check.devices[0], check.report["machine"]["peak_gflops"] * 1e9, PATIENCE)


def called(check: Check) -> Outcome:
    """Calls of one step, back to back."""
    check.report["calls"] = found = calls.measure(ours(check.devices[0]), Setting(5, SEED, check.devices[0], 0, 0))
    check.console.print(tables.calls(found))
    words = (", ".join(f"{part} {us:.1f}" for part, us in each["us"].items()) for each in found)
    return Outcome(PASSED, "us a call: " + "; ".join(f"{each['case']}: {word}" for each, word in zip(found, words)))


def ran(check: Check, name: str, words: Sequence[str]) -> Outcome:
    """A command line in a new process, twice: the first compiles kernels."""
    check.report["whole"][name] = found = whole.runs(words, 1, os.cpu_count() or 1, check.devices[0])
    check.console.print(tables.parts(name, found))
    spent = ", ".join(f"{part} {seconds:.2f}" for part, seconds in found["median"].items())
    return Outcome(PASSED, f"s: {spent}; {found['total_over_steps']:.2f} times its steps")


def beside(check: Check, case: whole.Case) -> Outcome:
    """A whole training against JAX."""
    if reason := excuse("jax_first", WORKLOADS["W2"], "sgd", check.devices[0]):
        return Outcome(ABSENT, reason)
    race = whole.beside_jax(case, Setting(5, SEED, check.devices[0], 0, 2 * PATIENCE))
    check.report["beside_jax"].append(race)
    check.console.print(tables.beside_jax([race]))
    quiet, busy = race["quiet_ratio"]["median"], race["busy_ratio"]["median"]
    return Outcome(PASSED, f"{case.name}: {quiet:.2f} times {race['best']}, {busy:.2f} with spinning processes")


def raced(check: Check, name: str, workload: Workload, optimizer: str, kind: str) -> Outcome:
    """One workload, gpubp against peers of a kind; those that do not run are listed with the reason."""
    peers = KINDS[kind]
    if "machine" not in check.report:
        return Outcome(ABSENT, "the machine's peak is not known")
    reasons = {each: excuse(each, workload, optimizer, check.devices[0]) for each in peers if each not in OURS}
    if reasons and all(reasons.values()):
        return Outcome(ABSENT, "; ".join(f"{each}: {reason}" for each, reason in reasons.items()))
    how = setting(check)
    names = list(dict.fromkeys([*OURS, *peers]))
    skipped = sweeps.without_room(workload, optimizer, names, {}, how)
    result = {"workload": name, "kind": kind, **measure(workload, optimizer, names, how, skipped)}
    check.report["results"].append(result)
    check.console.print(tables.rates(name, result))
    (first, figures), best = next(iter(result["contenders"].items())), result["best_peer"]
    said = f"{first} {figures['rate']:,.0f} network-steps/s, {figures['share_of_peak']:.1%} of the peak"
    if best:
        said += f", {best['median']:.2f} times {best['name']}"
    return Outcome(PASSED, said, list(tables.absent(result)))


def swept(check: Check, peers: Sequence[str]) -> Outcome:
    """The rate over the batch size, as time allows."""
    if "machine" not in check.report:
        return Outcome(ABSENT, "the machine's peak is not known")
    names = list(dict.fromkeys([*OURS, *peers]))
    points = sweeps.points(sweeps.BASES["batch_size"][1], "batch_size", "sgd", names, setting(check, 5))
    while check.left > POINT and (point := next(points, None)):
        check.report["sweep"].append(point)
        write(check.out, check.report)
    values = [point["value"] for point in check.report["sweep"]]
    missing = [f"batch size {value}: no time left" for value in sweeps.VALUES["batch_size"] if value not in values]
    return Outcome(PASSED, f"batch sizes {', '.join(map(str, values))}", missing)
