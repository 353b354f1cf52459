"""gpubp trains very many small neural networks at once. Start at README.md, then backprop.py."""

from . import backprop
from .activations import ACTIVATIONS, Activation
from .config import TrainConfig
from .data import Dataset
from .errors import GpubpError
from .initialise import INITIALISERS, Initialiser
from .loop import Result
from .losses import LOSSES, Loss
from .optimizers import OPTIMIZERS, Optimizer
from .population import Population
from .schedules import SCHEDULES, Schedule
from .spec import NetworkSpec
from .train import load, resume, train

__version__ = "0.1.0"
__all__ = [
    "ACTIVATIONS", "INITIALISERS", "LOSSES", "OPTIMIZERS", "SCHEDULES",
    "Activation", "Dataset", "GpubpError", "Initialiser", "Loss", "NetworkSpec", "Optimizer", "Population", "Result",
    "Schedule", "TrainConfig", "backprop", "load", "resume", "train",
]  # fmt: skip
