"""Which networks a run has, and which of them go on: sampling, successive halving, Hyperband, population based
training. The bridge to Optuna is gpubp.search.optuna."""

from .halving import Hyperband as Hyperband
from .halving import SuccessiveHalving as SuccessiveHalving
from .population_based import PopulationBased as PopulationBased
from .restoring import restored as restored
from .sampling import Range as Range
from .sampling import design as design
from .sampling import parse as parse
from .sampling import sample as sample
from .sampling import shortfall as shortfall
