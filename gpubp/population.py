"""Population: N networks as N rows, and operations on rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from . import line
from .backprop import forward
from .errors import ConfigError, OutOfMemoryError, ShapeError, SpecError, check_kind, lookup
from .export import modules, onnx_rows
from .maths.initialise import INITIALISERS, initialise
from .maths.rng import EVERYBODY, check_seed, counted
from .maths.spec import NetworkSpec
from .system import arrays, free
from .system.ambient import neutral
from .system.devices import usable

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, eq=False)
class Population:
    """N networks of one specification.

    params (N, P): row n holds every parameter of network n. seed, and ids (N,) int64: with the seed, an id decides
    everything that is random about a network: its initial weights, the order of its samples, its dropout. Networks may
    share an id, as copies made by take() do; if their weights and hyper-parameters are equal too, they stay equal.
    Raises ShapeError or ConfigError if these do not match.
    """

    spec: NetworkSpec
    params: Tensor
    seed: int
    ids: Tensor

    @neutral()
    def __post_init__(self) -> None:
        for name in ("params", "ids"):
            given = getattr(self, name)
            if not isinstance(given, Tensor) or given.layout != torch.strided or given.device != self.params.device:
                what = f"{given.layout} on {given.device}" if isinstance(given, Tensor) else type(given).__name__
                raise ShapeError(f"{name}: {what}; a dense tensor on one device, params' and ids', expected")
        if self.params.requires_grad:  # an nn.Parameter: autograd does not train it
            object.__setattr__(self, "params", self.params.detach())
        check_kind("spec", self.spec, NetworkSpec, error=SpecError)
        self.spec.layers(self.params)
        object.__setattr__(self, "seed", check_seed(self.seed))
        precise(self.params.dtype)
        if self.ids.shape != self.params.shape[:1] or self.ids.dtype != torch.int64:
            raise ShapeError(f"ids {tuple(self.ids.shape)} {self.ids.dtype}: ({len(self.params)},) int64 expected")

    def __repr__(self) -> str:
        widths, kind = "-".join(map(str, self.spec.widths)), str(self.params.dtype).removeprefix("torch.")
        many = f"{self.count} network{'s' * (self.count > 1)}"
        return f"Population({many} of {widths}, seed {self.seed}, {kind} on {self.device})"

    @classmethod
    @neutral()
    def create(
        cls,
        spec: NetworkSpec,
        count: int | None = None,
        seed: int = 0,
        init: str = "glorot_uniform",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        ids: Iterable[int] | Tensor | None = None,
        init_scale: float | Tensor | None = None,
    ) -> Self:
        """`count` networks with ids 0 .. count - 1, or those with the given `ids`: `ids=[7]` is network 7 alone. Raises
        OutOfMemoryError if they do not fit.

        init: a row of INITIALISERS; biases start at 0 except with torch_linear. init_scale multiplies the initial
        weights: a number, or (N,); by default the row's own (1, but 0.1 for uniform and normal, 0 for constant).
        """
        rule = lookup(INITIALISERS, init, "init", ConfigError)
        check_kind("spec", spec, NetworkSpec, error=SpecError, call="create(NetworkSpec((4, 16, 2)), count=100)")
        precise(dtype)
        if (count is None) == (ids is None):
            raise ConfigError("create needs count, or ids, not both and not neither")
        if ids is None:
            number = counted("count", count)
            room(spec, number, dtype)
            chosen = torch.arange(number)
        elif isinstance(ids, (set, frozenset)):
            chosen = arrays.tensor("ids", list(ids), ConfigError).cpu().sort().values
        else:
            chosen = arrays.tensor("ids", ids, ConfigError).cpu()
        whole = chosen.dtype == torch.int64 and chosen.ndim == 1 and len(chosen) > 0
        if not whole or int(chosen.min()) < 0 or int(chosen.max()) >= EVERYBODY:
            raise ConfigError(f"ids: one or more whole numbers from 0 to {EVERYBODY - 1} expected")
        if len(chosen.unique()) < len(chosen):
            raise ConfigError(
                "ids: some occur twice; networks with the same id would be the same; different ids expected"
            )
        params = initialise(spec, rule, check_seed(seed), chosen, dtype, init_scale)
        return cls(spec, params, seed, chosen).to(device=device)

    @classmethod
    @neutral()
    def from_modules(cls, networks: Iterable[nn.Sequential], loss: str = "mean_squared_error", seed: int = 0) -> Self:
        """A population of copies of torch.nn.Sequentials of Linear and activation, with Identity and Sequentials
        inside, all of one topology; the inverse of network(). Shared parts, such as a trunk, or one module given twice,
        train separately in each network. Raises SpecError for a module whose function or training a row
        cannot represent: tied or frozen weights, hooks, parametrizations, an overridden forward."""
        spec, params = modules.rows(networks, loss)
        return cls(spec, params, seed, torch.arange(len(params), device=params.device))

    @classmethod
    @neutral()
    def from_estimators(cls, estimators: Iterable[Any], seed: int = 0) -> Self:
        """A population of copies of scikit-learn's fitted MLPClassifiers or MLPRegressors, all of one topology; its
        loss is theirs. Raises SpecError for other estimators."""
        from .export import sklearn

        spec, params = sklearn.rows(estimators)
        return cls(spec, params, seed, torch.arange(len(params)))

    @classmethod
    @neutral()
    def from_onnx(
        cls,
        paths: Iterable[str | Path],
        loss: str = "mean_squared_error",
        seed: int = 0,
        start: str | None = None,
        end: str | None = None,
    ) -> Self:
        """A population of the networks in ONNX files, all of one topology: chains of Gemm, or MatMul and Add, and
        activations. start, end: the tensors where the chain begins and ends; by default the graph's input and output
        (labels do not count), or those of the networks in a file of export(): if it has several topologies, `end`
        chooses one (outs_0, outs_1). Raises SpecError, with the operator, for what a row cannot represent, such as a
        scaler, and for weights outside the file and its `.data`."""
        spec, params = onnx_rows.rows(paths, loss, start, end)
        return cls(spec, params, seed, torch.arange(len(params)))

    @property
    def count(self) -> int:
        """N."""
        return len(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        """The device of the parameters and ids."""
        return self.ids.device

    @neutral()
    def take(self, index: Sequence[int] | Sequence[bool] | Tensor | slice) -> Self:
        """The rows `index`, in that order, with their ids; copies. A mask of N truth values selects; -1 is the last
        row, as in a list."""
        if isinstance(index, slice):
            return replace(self, params=self.params[index].clone(), ids=self.ids[index].clone())
        at = self._rows("take", index)
        return replace(self, params=self.params[at], ids=self.ids[at])

    def _rows(self, name: str, index: Any) -> Tensor:
        return arrays.indices(name, index, self.count, ShapeError, negative=True).to(self.device)

    @neutral()
    def concatenate(self, *others: Self) -> Self:
        """These networks, then the others', with their ids. Raises SpecError if specifications or seeds differ."""
        for other in others:
            check_kind("concatenate", other, Population)
            if other.spec != self.spec or other.seed != self.seed:
                raise SpecError(
                    f"concatenate: {other.spec}, seed {other.seed}, given; {self.spec}, seed {self.seed}, expected"
                )
        everyone = (self, *others)
        return replace(self, params=torch.cat([p.params for p in everyone]), ids=torch.cat([p.ids for p in everyone]))

    @neutral()
    def copy_rows(self, source: Sequence[int] | Tensor, target: Sequence[int] | Tensor) -> Self:
        """A population in which the rows `target` are copies of the rows `source`, which may repeat, as in take();
        ids stay in place, so a copy continues with the random numbers of its new row."""
        of, over = self._rows("copy_rows: source", source), self._rows("copy_rows: target", target)
        if len(of) != len(over):
            raise ShapeError(f"copy_rows: source of {len(of)} rows, target of {len(over)}: equal lengths expected")
        if len(over.unique()) < len(over):
            raise ShapeError("copy_rows: target has a row twice; different rows expected")
        params = self.params.clone()
        params[over] = self.params[of]
        return replace(self, params=params)

    @neutral()
    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same networks on another device or with another dtype; shared if nothing changes."""
        if dtype is not None:
            precise(dtype)
        where = self.device if device is None else usable(device)
        return replace(self, params=self.params.to(where, dtype), ids=self.ids.to(where))

    @neutral()
    def network(self, index: int) -> nn.Sequential:
        """The network in row `index` as torch.nn.Sequential, with copies of its weights."""
        row = arrays.whole(index)
        if row is None:
            raise ShapeError(f"network({index!r}): a whole number, the network's row, expected")
        return modules.sequential(self.spec, self.params[int(self._rows("network", [row]))])

    @neutral()
    def predict(self, inputs: Tensor | Sequence[Any]) -> Tensor:
        """inputs (M, I) for all, or (N, M, I) -> outs (N, M, O); logits stay logits. Raises DataError for inputs that
        are not finite, or whole numbers that the networks' dtype cannot hold. Outs may be infinite or NaN if a
        network's sums overflow."""
        given = arrays.tensor("inputs", inputs)
        arrays.finite("inputs", given)
        floats = given.to(self.params)
        arrays.finite(f"as {floats.dtype}, inputs", floats)
        if not given.is_floating_point():
            arrays.held("inputs", given, floats)
        return forward(self.spec, self.params, floats)


def room(spec: NetworkSpec, count: int, dtype: torch.dtype) -> None:
    """Raise OutOfMemoryError for networks that do not fit, before the system kills the process for making them."""
    bytes_needed = count * spec.size * dtype.itemsize
    if (room := free.too_little(bytes_needed)) is not None:
        smaller = "a smaller one" if count == 1 else "fewer at once"
        raise OutOfMemoryError(
            f"{line.counted(count, 'network')} of {'-'.join(map(str, spec.widths))} need{'s' * (count == 1)} "
            f"{free.size(bytes_needed)}; {free.size(room)} are free: create {smaller}"
        )


def precise(dtype: Any) -> torch.dtype:
    """`dtype`, one of DTYPES; raises ConfigError for any other."""
    if not isinstance(dtype, torch.dtype) or dtype not in DTYPES.values():
        raise ConfigError(f"dtype {dtype}: one of {', '.join(map(str, DTYPES.values()))} expected")
    return dtype
