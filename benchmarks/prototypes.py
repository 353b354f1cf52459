"""--against DIR: kernels of one file each, as pop.cpp, pop_adam.cpp and wide.cpp of that folder, in the same rounds.

They are plain SGD (pop_adam: Adam) on the mean of squared errors, relu or sigmoid hidden layers, an identity output,
one learning rate, minibatches X (K, B, I) and Y (K, B, O) shared by all networks; widths and batch are constants of the
compilation. pop and pop_adam interleave the rows of the networks of a vector register, [group][parameter][lane]; wide
keeps a network's rows together, each output width padded to whole registers.

They know no divergence, no order of samples, no remainder of a batch; weights are compared with gpubp's in float32,
after the first call. pop_adam begins Adam's bias corrections anew at every call.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .contenders import OURS
from .harness import Setting, compiling, race, warm_up
from .limits import compiler
from .peers import Contender
from .workloads import Problem, Workload

FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-ffp-contract=off", "-std=c++17", "-shared", "-fPIC"]
CLOSE = 1e-2  # float32 sums in different orders; a wrong formula is apart by more than a tenth

_SQUARES = partial(Workload, loss="mean_squared_error", optimizers=("sgd", "adam"))
AGAINST = {
    "2-2-2": _SQUARES((2, 2, 2), "sigmoid", networks=192_000, batch=1, steps=100),
    "8-16-1": _SQUARES((8, 16, 1), "relu", networks=1_024, batch=32, steps=100),
    "16-64-64-4": _SQUARES((16, 64, 64, 4), "relu", networks=256, batch=128, steps=4),
    "64-32-10": _SQUARES((64, 32, 10), "relu", networks=256, batch=64, steps=10),
    "784-128-10": _SQUARES((784, 128, 10), "relu", networks=64, batch=64, steps=4),
}


@cache
def build(source: Path, widths: tuple[int, ...], batch: int, hidden: str) -> tuple[ctypes.CDLL, float]:
    """The compiled kernel, and the seconds that took."""
    folder = tempfile.TemporaryDirectory(prefix="prototype")
    _FOLDERS.append(folder)
    library = Path(folder.name, f"{source.stem}.so")
    sizes = [f"-DWIDTHS={','.join(map(str, widths))}", f"-DBATCH={batch}", f"-DACT={0 if hidden == 'sigmoid' else 1}"]
    start = time.perf_counter()
    subprocess.run([*(compiler() or ["g++"]), *FLAGS, *sizes, source, "-o", library], check=True)
    return ctypes.CDLL(str(library)), time.perf_counter() - start


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # until the process ends


class Prototype:
    """What the three share: the kernel, and the minibatches."""

    def __init__(self, problem: Problem, source: Path) -> None:
        spec, (self.steps, batch) = problem.population.spec, problem.inputs.shape[:2]
        self.networks, self.widths, self.lr = problem.population.count, spec.widths, float(problem.lr)
        self.kernel, self.compile_seconds = build(source, spec.widths, batch, str(spec.hidden))
        self.inputs, self.targets = problem.inputs.contiguous(), problem.targets.contiguous()


class Lanes(Prototype):
    """pop.cpp and pop_adam.cpp. slots: of the optimizer; the last register is filled up with copies of network 0."""

    def __init__(self, problem: Problem, source: Path, slots: int = 0) -> None:
        super().__init__(problem, source)
        rows, self.lanes = problem.population.params, self.kernel.vl()
        self.groups = -(-self.networks // self.lanes)
        rows = torch.cat((rows, rows[:1].expand(self.groups * self.lanes - self.networks, -1)))
        self.size = rows.shape[1]
        self.state = aligned((self.groups, (1 + slots) * self.size, self.lanes))
        self.state[:, : self.size] = rows.unflatten(0, (self.groups, self.lanes)).mT
        self.rates, self.loss = torch.full((len(rows),), self.lr), torch.zeros(len(rows))

    def call(self) -> None:
        """K steps."""
        data = pointers(self.state, self.rates, self.inputs, self.targets)
        self.kernel.train(*data, self.groups, self.steps, *pointers(self.loss))

    def params(self) -> Tensor:
        """The rows."""
        return self.state[:, : self.size].mT.flatten(0, 1)[: self.networks].contiguous()


class Wide(Prototype):
    """wide.cpp. A layer is I + 1 rows, the last its bias, of the output width padded to whole registers."""

    def __init__(self, problem: Problem, source: Path) -> None:
        super().__init__(problem, source)
        self.layers = problem.population.spec.layers
        self.state = aligned((self.networks, self.kernel.npar()))
        for view, layer in zip(self._views(), self.layers(problem.population.params)):
            view[:, :-1, : layer[0].shape[2]], view[:, -1, : layer[0].shape[2]] = layer

    def _views(self) -> list[Tensor]:
        """(N, I + 1, padded O) of every layer. How wide a register is follows from the number of parameters."""
        shapes = list(itertools.pairwise(self.widths))
        for lanes in (16, 8):
            sizes = [(i + 1) * -(-o // lanes) * lanes for i, o in shapes]
            if sum(sizes) == self.state.shape[1]:
                parts = self.state.split(sizes, 1)
                return [part.unflatten(1, (i + 1, -1)) for part, (i, _) in zip(parts, shapes)]
        raise AssertionError(f"wide.cpp has {self.state.shape[1]} parameters for {self.widths}")

    def call(self) -> None:
        """K steps."""
        params, inputs, targets = pointers(self.state, self.inputs, self.targets)
        self.kernel.train(params, ctypes.c_float(self.lr), inputs, targets, self.networks, self.steps)

    def params(self) -> Tensor:
        """The rows, without the padding."""
        parts = [
            part.flatten(1)
            for view, outputs in zip(self._views(), self.widths[1:])
            for part in (view[:, :-1, :outputs], view[:, -1, :outputs])
        ]
        return torch.cat(parts, 1)


def aligned(shape: tuple[int, ...]) -> Tensor:
    """Zeros that begin at a multiple of 64 bytes, as the kernels' loads want it."""
    count = torch.Size(shape).numel()
    memory = torch.zeros(count + 16)
    skip = (-memory.data_ptr() % 64) // memory.element_size()
    return memory[skip : skip + count].view(shape)


def pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    """Where their numbers lie."""
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def prototypes(folder: Path, workload: Workload, optimizer: str) -> dict[str, Callable[[Problem], Contender]]:
    """Those of the folder that can train this: wide knows relu alone."""
    wanted: dict[str, Callable[..., Contender]] = {"pop": Lanes, "wide": Wide}
    if optimizer == "adam":
        wanted = {"pop_adam": partial(Lanes, slots=2)}
    elif workload.hidden != "relu":
        del wanted["wide"]
    found = {name: partial(make, source=folder / f"{name}.cpp") for name, make in wanted.items()}
    return {name: make for name, make in found.items() if (folder / f"{name}.cpp").exists()}


def measure(workload: Workload, optimizer: str, folder: Path, setting: Setting) -> dict[str, Any] | None:
    """gpubp's engines beside the prototypes; None where the folder has none for this optimizer."""
    rivals = prototypes(folder, workload, optimizer)
    if not rivals:
        return None
    problem = workload.problem(optimizer)
    makers: Mapping[str, Callable[[Problem], Contender]] = {
        name: peer.make for name, peer in OURS.items() if name != "cuda"
    }
    check(workload, optimizer, {**makers, **rivals})
    result = race(workload, optimizer, {name: make(problem) for name, make in {**makers, **rivals}.items()}, setting)
    result["absent"] = {}
    return result


def check(workload: Workload, optimizer: str, makers: Mapping[str, Callable[[Problem], Contender]]) -> None:
    """Four steps of 32 networks in float32: all rows have moved where eager's have, but for a share CLOSE of the way.

    Not number by number: Adam's first steps are of the sign of a gradient, which may be nothing but rounding.
    """
    problem = replace(workload, networks=32, steps=4).problem(optimizer)
    start, moved = problem.population.params.double(), {}
    for name, make in makers.items():
        own, seconds = warm_up(name, make(problem), "cpu")
        compiling(name, workload, optimizer, seconds)  # while it still has to
        moved[name] = own.double() - start
    for name, own in moved.items():
        apart = float((own - moved["eager"]).norm() / moved["eager"].norm())
        if not apart < CLOSE:
            raise AssertionError(
                f"{name}, {optimizer}: {apart:.2g} of the way apart from eager, less than {CLOSE} expected"
            )
