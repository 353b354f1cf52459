"""PEERS: the table of contenders, one row each: how it is made, what it needs, where it does not run and why.

Before any timing, parity() trains all of them in float64 to the same weights.
"""

import importlib
import itertools
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from gpubp import TrainConfig
from gpubp.engines import ENGINES, choose
from gpubp.errors import EngineError

from .limits import compiler
from .peers import AutogradBmm, AutogradGraph, AutogradGraphTf32, Contender, Engine, TabmEnsemble, TabPack, VmapGrad
from .workloads import WORKLOADS, Problem, Workload

Reason = str  # why a contender does not run; empty if it does


def _late(module: str, name: str, **options: object) -> Callable[[Problem], Contender]:
    """A contender from a module that is imported at first use: its packages may be missing."""
    return lambda problem: getattr(importlib.import_module(f".{module}", __package__), name)(problem, **options)


def _on_cpu(workload: Workload, optimizer: str, device: str) -> Reason:
    return "" if device == "cpu" else "runs on the CPU only"


def _on_gpu(workload: Workload, optimizer: str, device: str) -> Reason:
    return "runs on a GPU only" if device == "cpu" else ""


def _on_chip(workload: Workload, optimizer: str, device: str) -> Reason:
    """Why networks do not fit on the GPU's chip, in float32 or in float64, which parity uses; or ""."""
    if device == "cpu":
        return "runs on a GPU only"
    try:
        for part, dtype in itertools.product(workload.parts, (torch.float32, torch.float64)):
            config = TrainConfig(optimizer, batch_size=part.batch, steps=1, shuffle="none")
            choose("cuda", part.spec, config, torch.device(device), dtype)
    except EngineError as error:
        return str(error)
    return ""


def _jax(workload: Workload, optimizer: str, device: str) -> Reason:
    if device == "cpu":
        return ""
    jax = importlib.import_module("jax")
    return "" if jax.default_backend() == "gpu" else "this JAX finds no GPU"


def _jax_on_gpu(workload: Workload, optimizer: str, device: str) -> Reason:
    return _on_gpu(workload, optimizer, device) or _jax(workload, optimizer, device)


def _tabpack(workload: Workload, optimizer: str, device: str) -> Reason:
    if not (find_spec("project") and find_spec("project.optim")):
        return "not installed: tabpack-paper"
    return "" if optimizer == "adam" else "TabPack has AdamW and Muon"


def _one_lr(workload: Workload, optimizer: str, device: str) -> Reason:
    return "torch's fused optimizers take one lr: the same as autograd_bmm here" if workload.own_lr else ""


def _compiler(workload: Workload, optimizer: str, device: str) -> Reason:
    return "" if device != "cpu" or compiler() else "no C++ compiler"


def _unrolled(workload: Workload, optimizer: str, device: str) -> Reason:
    fits = workload.widths == (2, 2, 2) and workload.batch == 1 and workload.hidden == "sigmoid"
    if not (fits and optimizer == "sgd" and not workload.own_lr):
        return "the formulas are for 2-2-2 sigmoid, B = 1, SGD"
    return _compiler(workload, optimizer, device)


class Peer(NamedTuple):
    """A row. needs: packages. excuse(workload, optimizer, device): why it does not run there, or "". kept: the weights
    of a network stay in cache over the K steps, if they fit. rounded: products are not in float32: shown, and never
    the peer of a figure that is."""

    make: Callable[[Problem], Contender]
    needs: tuple[str, ...] = ()
    excuse: Callable[[Workload, str, str], Reason] = lambda *given: ""
    kept: bool = False
    rounded: bool = False


OURS = {
    name: Peer(partial(Engine, name=name), excuse=excuse, kept=True)
    for name, excuse in {"cpu": _on_cpu, "cuda": _on_chip, "eager": lambda *given: ""}.items()
    if name in ENGINES
}


def ours(device: str) -> str:
    """The engine with which the others are compared on this device."""
    return next(name for name, peer in OURS.items() if not peer.excuse(WORKLOADS["W2"], "sgd", device))


PEERS: dict[str, Peer] = {
    **OURS,
    "autograd_bmm": Peer(AutogradBmm),
    "autograd_bmm_fused": Peer(partial(AutogradBmm, fused=True), excuse=_one_lr),
    "autograd_graph": Peer(AutogradGraph, excuse=_on_gpu),
    "vmap_grad": Peer(VmapGrad),
    "tabm_ensemble": Peer(TabmEnsemble, ("tabm",)),
    "tabpack": Peer(TabPack, excuse=_tabpack),
    "compile_bmm": Peer(_late("compiled_peers", "CompiledBmm"), excuse=_compiler),
    "compile_unrolled": Peer(_late("compiled_peers", "CompiledUnrolled"), excuse=_unrolled),
    "jax_first": Peer(_late("jax_peers", "Jax"), ("jax", "optax"), _jax),
    "jax_last": Peer(_late("jax_peers", "Jax", last=True), ("jax", "optax"), _jax),
    "cuda_tf32": Peer(partial(Engine, name="cuda", precision="tf32"), excuse=_on_chip, kept=True, rounded=True),
    "cuda_3xtf32": Peer(partial(Engine, name="cuda", precision="3xtf32"), excuse=_on_chip, kept=True, rounded=True),
    "autograd_graph_tf32": Peer(AutogradGraphTf32, excuse=_on_gpu, rounded=True),
    "jax_tf32": Peer(_late("jax_peers", "Jax", precision="default"), ("jax", "optax"), _jax_on_gpu, rounded=True),
}


def excuse(name: str, workload: Workload, optimizer: str, device: str) -> Reason:
    """Why the contender does not run on this workload, or ""."""
    missing = [package for package in PEERS[name].needs if find_spec(package) is None]
    return f"not installed: {', '.join(missing)}" if missing else PEERS[name].excuse(workload, optimizer, device)


def parity(workload: Workload, optimizer: str, names: Sequence[str], device: str = "cpu") -> dict[str, float]:
    """Train 8 networks in float64, four steps in two calls. -> the largest difference of each from the first.

    Raises AssertionError if a contender's rows differ from the first's.
    """
    small = workload.tiny()
    first = rows(names[0], small, optimizer, device)
    if torch.equal(first, small.problem(optimizer, torch.float64, device).population.params.cpu()):
        raise AssertionError(f"{names[0]} changed nothing")
    differences = {}
    for name in names:
        found = rows(name, small, optimizer, device)
        torch.testing.assert_close(
            found, first, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}, {optimizer}: {text}"
        )
        differences[name] = float((found - first).abs().max())
    return differences


@cache
def rows(name: str, small: Workload, optimizer: str, device: str) -> Tensor:
    """A contender's weights after two calls in float64."""
    contender = PEERS[name].make(small.problem(optimizer, torch.float64, device))
    contender.call()
    contender.call()
    return contender.params().cpu()
