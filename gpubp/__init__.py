"""gpubp trains very many small neural networks at once. Start at README.md, then backprop.py.

Names (from public.py) and modules load on first use (PEP 562): `gpubp --help` does not wait for torch, which
takes seconds to import.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .system import forks as forks

if TYPE_CHECKING:
    from .public import *

__version__ = "0.1.0"
__all__ = [
    "ACTIVATIONS", "INITIALISERS", "LOSSES", "MODULES", "OPTIMIZERS", "SCHEDULES",
    "Activation", "ConsoleReporter", "Dataset", "Ensemble", "GpubpError", "Initialiser", "Loss", "Model", "NetworkSpec",
    "Optimizer", "Plan", "Population", "Prepared", "Reading", "Replay", "Reporter", "Result", "Schedule", "Status",
    "TensorBoardReporter", "TrainConfig", "backprop", "load", "load_data", "plan", "replay", "resume", "train",
    "train_many",
]  # fmt: skip


@cache
def _is_module(name: str) -> bool:
    """Cached: a command's parser asks for the same few names hundreds of times."""
    return find_spec(f"{__name__}.{name}") is not None


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> object:
        """A module of the package, or a name of public.py."""
        if _is_module(name):
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(f"{__name__}.public"), name)
        return globals()[name]


def __dir__() -> list[str]:
    """Names loaded so far and those of __all__."""
    return sorted({*globals(), *__all__})
