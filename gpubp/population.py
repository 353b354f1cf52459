"""Population: N networks as N rows, and operations on rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from . import cuda, modules
from .backprop import forward
from .errors import ConfigError, DeviceError, ShapeError, SpecError, lookup
from .initialise import INITIALISERS, initialise
from .rng import EVERYBODY, check_seed
from .spec import NetworkSpec

DTYPES = {"float32": torch.float32, "float64": torch.float64}
ALLOWED = "auto, cpu, cuda, cuda:1 ..., or cuda:all to train"


@dataclass(frozen=True, eq=False)
class Population:
    """N networks of one specification.

    params (N, P): row n holds every parameter of network n. seed, and ids (N,) int64, different from each other: with
    the seed, an id decides everything that is random about a network: its initial weights, the order of its samples,
    its dropout. Raises ShapeError or ConfigError where they do not fit each other.
    """

    spec: NetworkSpec
    params: Tensor
    seed: int
    ids: Tensor

    def __post_init__(self) -> None:
        self.spec.layers(self.params)
        check_seed(self.seed)
        if self.params.dtype not in DTYPES.values():
            raise ConfigError(f"dtype {self.params.dtype}: one of {', '.join(DTYPES)} expected")
        if self.ids.shape != self.params.shape[:1] or self.ids.dtype != torch.int64:
            raise ShapeError(f"ids {tuple(self.ids.shape)} {self.ids.dtype}: ({len(self.params)},) int64 expected")

    @classmethod
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
    ) -> Population:
        """`count` networks with ids 0 .. count - 1, or those with the given `ids`: `ids=[7]` is network 7 alone.

        init: a row of INITIALISERS; biases start at 0 but for torch_linear. init_scale multiplies the initial weights:
        a number, or (N,); by default the row's own (1, but 0.1 for uniform and normal, 0 for constant).
        """
        rule = lookup(INITIALISERS, init, "init", ConfigError)
        if (count is None) == (ids is None):
            raise ConfigError("create needs count, or ids, not both and not neither")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ConfigError(f"count {count!r}: a whole number of networks, 1 or more, expected")
        chosen = torch.arange(count) if count is not None else torch.as_tensor(ids, dtype=torch.int64).cpu()
        if chosen.ndim != 1 or not len(chosen) or int(chosen.min()) < 0 or int(chosen.max()) >= EVERYBODY:
            raise ConfigError(f"ids: one or more whole numbers from 0 to {EVERYBODY - 1} expected")
        if len(chosen.unique()) < len(chosen):
            raise ConfigError(
                "ids: some stand twice; networks with the same id would be the same; different ids expected"
            )
        if dtype not in DTYPES.values():
            raise ConfigError(f"dtype {dtype}: one of {', '.join(DTYPES)} expected")
        params = initialise(spec, rule, check_seed(seed), chosen, dtype, init_scale)
        return cls(spec, params, seed, chosen).to(device=device)

    @classmethod
    def from_modules(
        cls, networks: Iterable[nn.Sequential], loss: str = "mean_squared_error", seed: int = 0
    ) -> Population:
        """torch.nn.Sequential of Linear and activation, all of one topology, as a population; the inverse of
        network()."""
        spec, params = modules.rows(networks, loss)
        return cls(spec, params, seed, torch.arange(len(params), device=params.device))

    @property
    def count(self) -> int:
        """N."""
        return len(self.params)

    def __len__(self) -> int:
        return len(self.params)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.params.device

    def take(self, index: Sequence[int] | Tensor | slice) -> Population:
        """The rows `index`, in that order, with their ids; copies."""
        at = index if isinstance(index, slice) else torch.as_tensor(index, device=self.device)
        if isinstance(at, Tensor) and at.numel() and at.dtype != torch.bool and not bool((at < self.count).all()):
            raise ShapeError(f"take: row {int(at.max())}; rows 0 to {self.count - 1} expected")
        params = self.params[at]
        if params.ndim != 2:
            raise ShapeError(f"take({index!r}): a sequence of rows or a slice expected, for one row [{index!r}]")
        return replace(self, params=params.clone(), ids=self.ids[at].clone())

    def concatenate(self, *others: Population) -> Population:
        """These networks, then the others', with their ids. Raises SpecError where specification or seed differ."""
        for other in others:
            if other.spec != self.spec or other.seed != self.seed:
                raise SpecError(
                    f"concatenate: {other.spec}, seed {other.seed}, given; {self.spec}, seed {self.seed}, expected"
                )
        everyone = (self, *others)
        return replace(self, params=torch.cat([p.params for p in everyone]), ids=torch.cat([p.ids for p in everyone]))

    def copy_rows(self, source: Sequence[int] | Tensor, target: Sequence[int] | Tensor) -> Population:
        """A population in which the rows `target` are copies of the rows `source`; ids stay with their places, so
        that a copy goes on with the random numbers of the place it was copied to."""
        of, over = (torch.as_tensor(index, device=self.device) for index in (source, target))
        if of.shape != over.shape or of.ndim != 1:
            raise ShapeError(f"copy_rows: source {tuple(of.shape)}, target {tuple(over.shape)}: equal lengths expected")
        params = self.params.clone()
        params[over] = self.params[of]
        return replace(self, params=params)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Population:
        """The same networks elsewhere or in another precision; these very ones where nothing changes."""
        if dtype is not None and dtype not in DTYPES.values():
            raise ConfigError(f"dtype {dtype}: one of {', '.join(DTYPES)} expected")
        where = self.device if device is None else usable(device)
        return replace(self, params=self.params.to(where, dtype), ids=self.ids.to(where))

    def network(self, index: int) -> nn.Sequential:
        """The network in row `index` as torch.nn.Sequential, with copies of its weights."""
        if not -self.count <= index < self.count:
            raise ShapeError(f"network({index}): a row from 0 to {self.count - 1} expected")
        return modules.sequential(self.spec, self.params[index])

    def predict(self, inputs: Tensor) -> Tensor:
        """inputs (M, I) for all, or (N, M, I) -> outs (N, M, O); logits stay logits."""
        return forward(self.spec, self.params, torch.as_tensor(inputs).to(self.params))


def usable(device: str | torch.device) -> torch.device:
    """`device`, checked: raises DeviceError with one sentence that says what is missing."""
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"device {device!r} is unknown; allowed: {ALLOWED}") from None
    if wanted.type == "cuda":
        missing = cuda.missing()
        if missing is not None:
            raise DeviceError(f"device {str(device)!r}: {missing}; use --device cpu")
        if (wanted.index or 0) >= cuda.count():
            raise DeviceError(f"device {str(device)!r}: this machine has {cuda.count()} GPUs, from cuda:0 on")
        return torch.device("cuda", cuda.current() if wanted.index is None else wanted.index)
    if wanted.type != "cpu":
        raise DeviceError(f"device {str(device)!r} is not supported; allowed: {ALLOWED}")
    return torch.device("cpu")
