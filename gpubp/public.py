"""The names of gpubp.__all__ that need nothing heavier than torch.

No module but backprop has such a name: it would replace it.
"""

from . import backprop as backprop
from .activations import ACTIVATIONS as ACTIVATIONS
from .activations import Activation as Activation
from .config import TrainConfig as TrainConfig
from .data import Dataset as Dataset
from .errors import GpubpError as GpubpError
from .initialise import INITIALISERS as INITIALISERS
from .initialise import Initialiser as Initialiser
from .losses import LOSSES as LOSSES
from .losses import Loss as Loss
from .optimizers import OPTIMIZERS as OPTIMIZERS
from .optimizers import Optimizer as Optimizer
from .planning import Plan as Plan
from .planning import plan as plan
from .population import Population as Population
from .replaying import Replay as Replay
from .replaying import replay as replay
from .reporters import Reporter as Reporter
from .reporters.console import ConsoleReporter as ConsoleReporter
from .reporters.tensorboard import TensorBoardReporter as TensorBoardReporter
from .result import Result as Result
from .resuming import resume as resume
from .schedules import SCHEDULES as SCHEDULES
from .schedules import Schedule as Schedule
from .spec import NetworkSpec as NetworkSpec
from .state import Status as Status
from .training import train as train
from .training import train_many as train_many
