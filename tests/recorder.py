"""What stands in for a GPU where there is none: CUDA graphs played by the CPU, and tensors that claim to lie on cuda:0.

A Tape is a CUDA graph as far as memory goes: what a step calls is recorded with the very tensors that it was called
with, and called again on them, its results written into those of the recording. So it repeats what a graph would: it
never sees a tensor that came later, a number that was read into Python, a branch. What waits for a GPU is refused while
recording, as CUDA refuses it.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gpubp
from gpubp.engines import graph
from gpubp.maths import blocks, rng
from gpubp.system import gpus

aten = torch.ops.aten
WAITS = (aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select, aten._unique2)
DEVICE = torch.device("cuda:0")


def like(real: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """`fake`, called with what `real` takes, or TypeError."""
    signature = inspect.signature(real)

    def call(*given: Any, **named: Any) -> Any:
        signature.bind(*given, **named)
        return fake(*given, **named)

    return call


class Tape(TorchDispatchMode):
    """One recording. calls: how many operations it holds; replayed: how often it was played."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[tuple[Any, Any, Any, Any]] = []
        self.replayed = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = func.overloadpacket in WAITS or (
            func.overloadpacket in (aten.index, aten.index_put_) and _masked(args[1])
        )
        if waits:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        given = {None, *map(_memory, _leaves((*args, *(kwargs or {}).values())))}
        made = [None if _memory(each) in given else each for each in _leaves((out,))]
        if func._schema.is_mutable or any(each is not None for each in made):  # a view is there without a call
            self.recorded.append((func, args, kwargs or {}, made))
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Of torch: not to be wrapped, which costs as much as what it does."""
        return False

    @torch.no_grad()
    def replay(self) -> None:
        """The same calls on the same memory."""
        self.replayed += 1
        for func, args, kwargs, made in self.recorded:
            new = func(*args, **kwargs)
            for old, each in zip(made, _leaves((new,))):
                if old is not None:
                    old.copy_(each)


def _leaves(given: tuple[Any, ...]) -> list[Any]:
    """What an operation takes or gives, those of its lists one by one: faster than torch's tree_leaves()."""
    return [leaf for each in given for leaf in (each if isinstance(each, (tuple, list)) else (each,))]


def _memory(given: Any) -> int | None:
    return given.untyped_storage()._cdata if isinstance(given, Tensor) else None


def _masked(index: Any) -> bool:
    return any(each is not None and each.dtype == torch.bool for each in index)


class Recorder:
    """Stands for gpubp.system.gpus's graphs. tapes: every recording that was made, in order."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []

    def capture(
        self, step: Callable[[], None], first: Callable[[], None] | None = None, pool: Any = None
    ) -> Callable[[], None]:
        """gpubp.system.gpus.capture."""
        (first or step)()  # of gpus.WARM that warm up one, which is to leave nothing behind
        tape = Tape()
        with tape:
            step()
        self.tapes.append(tape)
        return tape.replay

    @property
    def replays(self) -> list[int]:
        """How often each was played."""
        return [tape.replayed for tape in self.tapes]


@contextmanager
def recorded(most: int = 4) -> Iterator[Recorder]:
    """The CPU trains as a GPU does: in groups of `most` networks, whose steps are recorded and replayed."""
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpus, "capture", recorder.capture)
        patch.setattr(gpus, "pool", lambda: None)
        patch.setattr(blocks, "FIXED", ("cuda", "cpu"))
        patch.setattr(rng, "COUNTED", ())
        patch.setattr(blocks, "MOST", most)
        patch.setattr(graph, "GROUPS", type(graph.GROUPS)())
        yield recorder


class Indexing(TorchFunctionMode):
    """tensor[...], copy_ and the like by operations: torch's own ask for the device's driver before they look at the
    tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            return _item(*args)
        if func is Tensor.__setitem__:
            return aten.copy_(_item(*args[:2]), args[2])
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if "not linked with support for cuda" not in str(error):
                raise
            return getattr(aten, func.__name__)(*args, **(kwargs or {}))


def _item(tensor: Tensor, index: Any) -> Tensor:
    place, parts = 0, index if isinstance(index, tuple) else (index,)
    for number, each in enumerate(parts):
        if each is Ellipsis:
            place = tensor.ndim - sum(later is not None for later in parts[number + 1 :])
            continue
        if each is None:
            tensor = aten.unsqueeze(tensor, place)
        elif isinstance(each, slice):
            tensor = aten.slice(tensor, place, each.start, each.stop, each.step or 1)
        elif isinstance(each, int):
            tensor, place = aten.select(tensor, place, each), place - 1
        else:
            tensor = aten.index(tensor, [*[None] * place, each])
        place += 1
    return tensor


class Near(TorchDispatchMode):
    """Refuses copies between a GPU and the host, for which it would be waited."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (aten._to_copy, aten.copy_):
            devices = {str(each.device) for each in tree_leaves((args, out)) if isinstance(each, Tensor)}
            assert len(devices) == 1, f"{func} from one device to another: {devices}"
        return out


@contextmanager
def pretended() -> Iterator[Callable[[Tensor], Tensor]]:
    """torch without numbers: give() makes a tensor on cuda:0 like another. Whatever reads a number there, or mixes it
    with a tensor of the CPU, raises."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(), Near(), Indexing():
        patch.setattr(gpus, "capture", lambda step, first, pool: (step(), step)[1])
        patch.setattr(gpus, "pool", lambda: None)
        patch.setattr(graph, "GROUPS", type(graph.GROUPS)())
        yield lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)


def there(data: gpubp.Dataset, give: Callable[[Tensor], Tensor]) -> gpubp.Dataset:
    """`data` in tensors that `give` makes."""
    other = object.__new__(gpubp.Dataset)
    for name, value in vars(data).items():
        setattr(other, name, give(value) if isinstance(value, Tensor) else value)
    return other
