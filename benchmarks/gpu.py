"""Everything that only a GPU can show, in one run with an end: scripts/gpu_check.py.

Steps are taken in order while there is time; one that fails does not keep the next from being taken. Whatever was not
run stands in the report with its reason, and a figure stands there only where it was measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from gpubp import placement
from gpubp.engines import ENGINES

from . import machine, plots, proofs, roofline, sweeps, tables, threads
from .contenders import OURS, PEERS, ours
from .harness import Setting, measure, own_kernels
from .workloads import WORKLOADS, Workload

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED, ABSENT = "passed", "failed", "not run"
COMPILED = ("compile_bmm", "compile_unrolled", "jax_first", "jax_last")  # they take longer to compile than to measure
SUITE = ("compiled_independence", "compiled_divergence", "compiled", "compiled_rules", "independence", "divergence")
ROUNDS, PATIENCE, SEED = 9, 1.0, 0


class Outcome(NamedTuple):
    """What became of a step: one of the three words above, a line about it, and what it lists."""

    status: str
    said: str
    listed: Sequence[str] = ()


class Step(NamedTuple):
    """A part of the check. least: seconds that must be left for it to begin."""

    name: str
    run: Callable[[], Outcome]
    least: float


@dataclass
class Check:
    """One run. devices: the GPUs; out: the folder of its results; end: when it has to be over, by time.monotonic()."""

    devices: Sequence[str]
    out: Path
    end: float
    console: Console
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def run(self, steps: Sequence[Step]) -> bool:
        """Take the steps, write what is known after each. -> whether none failed."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.report |= {"devices": list(self.devices), "checks": [], "results": [], "sweep": []}
        for step in steps:
            begun = time.monotonic()
            outcome = attempt(step, self.left)
            entry = {"name": step.name, **outcome._asdict(), "listed": list(outcome.listed)}
            self.report["checks"].append({**entry, "seconds": time.monotonic() - begun})
            self.console.print(f"{step.name}: {outcome.status}: {outcome.said}", highlight=False)
            for line in outcome.listed:
                self.console.print(f"  {line}", highlight=False)
            (self.out / "gpu_check.json").write_text(json.dumps(self.report, indent=1) + "\n")
        self.console.print(overview(self.report))
        self._draw()
        return all(each["status"] != FAILED for each in self.report["checks"])

    def _draw(self) -> None:
        """The plots of what was measured."""
        if self.report["results"]:
            plots.ratios(self.report, self.out / "gpu_check.png")
            roofline.plot(self.report, self.out / "gpu_check-roofline.png")
        if self.report["sweep"]:
            points = {**self.report, "results": self.report["sweep"], "over": "batch_size", "workload": "W5"}
            plots.sweep(points, self.out / "gpu_check-batch_size.png")


def attempt(step: Step, left: float) -> Outcome:
    """The step's outcome, also where it raises or there is no time."""
    if left < step.least:
        return Outcome(ABSENT, f"{max(0, left):.0f} s are left, {step.least:.0f} are needed")
    try:
        return step.run()
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        return Outcome(FAILED, f"{type(error).__name__}: {first}")


def steps(check: Check) -> list[Step]:
    """What is done on `check.devices`, the most telling first."""
    first = check.devices[0]
    engines = [name for name in ("cuda", "eager") if name in ENGINES]
    made = [
        Step("machine", partial(facts, check), 10),
        Step("tests marked gpu", partial(tests, check, ["-m", "gpu"], check.out / "tests.xml"), 30),
        Step("bits of engine cuda against engine cpu", partial(bits, first), 10),
    ]
    for engine in engines:
        made += [
            Step(f"{engine}: near eager on the CPU", lambda e=engine: proven(proofs.nearness(e, first)), 10),
            Step(f"{engine}: independence", lambda e=engine: proven(proofs.independence(e, first)), 10),
            Step(f"{engine}: number of GPUs", partial(shared, engine, check.devices), 10),
        ]
    for name in SUITE:
        chosen = ["--device", first, f"tests/test_{name}.py"]
        made.append(Step(f"suite on {first}: {name}", partial(tests, check, chosen, check.out / f"{name}.xml"), 20))
    rows = [(name, each, optimizer) for name, each in WORKLOADS.items() for optimizer in each.optimizers]
    plain = [name for name in PEERS if name not in COMPILED]
    made += [Step(f"{name}, {o}", partial(raced, check, name, each, o, plain), 20) for name, each, o in rows]
    made.append(Step("sweep over batch_size", partial(swept, check, plain), 40))
    made += [
        Step(f"{name}, {o}, compiled peers", partial(raced, check, name, each, o, COMPILED), 60)
        for name, each, o in rows
    ]
    return made


def facts(check: Check) -> Outcome:
    """The machine, its peak and its bandwidth; later steps need them."""
    check.report["machine"] = known = machine.facts(check.devices[0], threads.limit(os.cpu_count() or 1, "cuda"))
    check.report |= {"first": ours(check.devices[0]), "rounds": ROUNDS, "seed": SEED, "patience": PATIENCE}
    known["tf32"] = torch.get_float32_matmul_precision()
    said = f"{known['device']}, {known['peak_gflops']:,.0f} GFLOP/s ({known['peak_of']}), "
    return Outcome(PASSED, f"{said}{known['copy_gbytes_per_second']:,.0f} GB/s")


def tests(check: Check, chosen: Sequence[str], log: Path) -> Outcome:
    """pytest with these arguments, for half of the time left at most. What it skipped is listed. log: its report."""
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={log}", *chosen]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=check.left / 2, check=False)
    except subprocess.TimeoutExpired as late:
        return Outcome(FAILED, f"not done after {late.timeout:.0f} s")
    if not log.exists():
        return Outcome(FAILED, (done.stdout + done.stderr).strip().splitlines()[-1])
    return read_tests(log)


def read_tests(log: Path) -> Outcome:
    """The outcome in pytest's XML: failed where a test did, or where none ran."""
    found: dict[str, list[str]] = {"failure": [], "error": [], "skipped": [], PASSED: []}
    for case in ElementTree.parse(log).iter("testcase"):
        kind = next((child for child in case if child.tag in found), None)
        name = case.get("name", "")
        found[PASSED if kind is None else kind.tag].append(
            name if kind is None else f"{kind.tag}: {name}: {kind.get('message')}"
        )
    bad = found["failure"] + found["error"]
    said = f"{len(found[PASSED])} passed, {len(bad)} failed, {len(found['skipped'])} skipped"
    return Outcome(PASSED if found[PASSED] and not bad else FAILED, said, bad + found["skipped"])


def proven(proof: proofs.Proof) -> Outcome:
    """A proof as an outcome."""
    status = FAILED if proof.differing or not proof.compared else PASSED
    return Outcome(status, f"{proof.compared} comparisons, {len(proof.differing)} differ", proof.differing)


def bits(device: str) -> Outcome:
    """Engine cuda against engine cpu."""
    for name in ("cuda", "cpu"):
        if name not in ENGINES:
            return Outcome(ABSENT, f"this gpubp has no engine {name}")
    return proven(proofs.equal_bits("cuda", device, "cpu"))


def shared(engine: str, devices: Sequence[str]) -> Outcome:
    """One GPU against several."""
    if len(devices) < 2:
        return Outcome(ABSENT, "this machine has one GPU")
    return proven(proofs.shares(engine, devices))


def raced(check: Check, name: str, workload: Workload, optimizer: str, peers: Sequence[str]) -> Outcome:
    """One workload, gpubp beside peers; who does not run is listed with the reason."""
    if "machine" not in check.report:
        return Outcome(ABSENT, "the machine's peak is not known")
    setting = Setting(ROUNDS, SEED, check.devices[0], check.report["machine"]["peak_gflops"] * 1e9, PATIENCE)
    names = list(dict.fromkeys([*OURS, *peers]))
    skipped = sweeps.without_room(workload, optimizer, names, {}, setting)
    result = {"workload": name, **measure(workload, optimizer, names, setting, skipped)}
    for each, figures in result["contenders"].items():
        moved = figures["rate"] * result["flop"] / roofline.intensity(result, each)
        figures["share_of_bandwidth"] = moved / (check.report["machine"]["copy_gbytes_per_second"] * 1e9)
    check.report["results"].append(result)
    check.console.print(tables.rates(name, result))
    (first, own), best = next(iter(result["contenders"].items())), result["best_peer"]
    shares = f"{own['share_of_peak']:.1%} of the peak, {own['share_of_bandwidth']:.1%} of the bandwidth"
    said = f"{first} {own['rate']:,.0f} network-steps/s, {shares}"
    if best:
        said += f", {best['median']:.2f} times {best['name']}"
    return Outcome(PASSED, said, list(tables.absent(result)))


def swept(check: Check, peers: Sequence[str]) -> Outcome:
    """The rate over the batch size, as far as time goes."""
    if "machine" not in check.report:
        return Outcome(ABSENT, "the machine's peak is not known")
    setting = Setting(5, SEED, check.devices[0], check.report["machine"]["peak_gflops"] * 1e9, PATIENCE)
    names = list(dict.fromkeys([*OURS, *peers]))
    until = check.left / 2
    points = sweeps.points(sweeps.BASES["batch_size"][1], "batch_size", "sgd", names, setting)
    while check.left > until and (point := next(points, None)):
        check.report["sweep"].append(point)
    values = [point["value"] for point in check.report["sweep"]]
    missing = [f"batch size {value}: no time left" for value in sweeps.VALUES["batch_size"] if value not in values]
    return Outcome(PASSED, f"batch sizes {', '.join(map(str, values))}", missing)


def overview(report: dict[str, Any]) -> Table:
    """Every step in a line."""
    table = Table(title="GPU check", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("step", "outcome", "s", "what"):
        table.add_column(heading, justify="right" if heading == "s" else "left")
    for each in report["checks"]:
        table.add_row(each["name"], each["status"], f"{each['seconds']:.0f}", each["said"])
    return table


def main(out: Path, minutes: float) -> int:
    """Check every GPU of this machine. -> exit status: 0 where nothing failed."""
    console = Console(record=True, width=None if sys.stdout.isatty() else 140)
    devices = [str(each) for each in placement.devices(placement.ALL)]
    check = Check(devices, out, time.monotonic() + 60 * minutes, console)
    with own_kernels():
        good = check.run(steps(check))
    console.print(str(out), highlight=False, soft_wrap=True)
    console.save_text(str(out / "gpu_check.txt"))
    return 0 if good else 1
