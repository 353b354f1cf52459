"""The names of gpubp.__all__, which need nothing heavier than torch and pyarrow.

No module but backprop may share one of these names: importing it would replace the name.
"""

from . import backprop as backprop
from .errors import GpubpError as GpubpError
from .export.modules import MODULES as MODULES
from .maths.activations import ACTIVATIONS as ACTIVATIONS
from .maths.activations import Activation as Activation
from .maths.initialise import INITIALISERS as INITIALISERS
from .maths.initialise import Initialiser as Initialiser
from .maths.losses import LOSSES as LOSSES
from .maths.losses import Loss as Loss
from .maths.optimizers import OPTIMIZERS as OPTIMIZERS
from .maths.optimizers import Optimizer as Optimizer
from .maths.schedules import SCHEDULES as SCHEDULES
from .maths.schedules import Schedule as Schedule
from .maths.spec import NetworkSpec as NetworkSpec
from .population import Population as Population
from .raw.text import Reading as Reading
from .reporters import Reporter as Reporter
from .reporters.console import ConsoleReporter as ConsoleReporter
from .reporters.tensorboard import TensorBoardReporter as TensorBoardReporter
from .results.ensemble import Ensemble as Ensemble
from .results.model import Model as Model
from .results.model import load as load
from .results.result import Result as Result
from .resumed.replay import Replay as Replay
from .resumed.replay import replay as replay
from .resumed.resume import resume as resume
from .runs.planning import Plan as Plan
from .runs.planning import plan as plan
from .runs.training import train as train
from .runs.training import train_many as train_many
from .samples import sources
from .samples.data import Dataset as Dataset
from .samples.sources import Prepared as Prepared
from .settings.config import TrainConfig as TrainConfig
from .state import Status as Status

load_data = sources.load_data
