"""Which networks a run has, and which of them continue: sampling, successive halving, Hyperband, population based
training. The bridge to Optuna is gpubp.search.optuna. Read method.py first: how a search serves the loop of a run.
"""

from pathlib import Path
from typing import Any

from ..errors import CheckpointError, GpubpError
from .asynchronous import Arrivals
from .asynchronous import AsynchronousHalving as AsynchronousHalving
from .halving import Hyperband as Hyperband
from .halving import SuccessiveHalving as SuccessiveHalving
from .lineage import Lineage
from .population_based import PopulationBased as PopulationBased
from .sampling import Range as Range
from .sampling import design as design
from .sampling import parse as parse
from .sampling import sample as sample
from .sampling import shortfall as shortfall

METHODS = {each.name: each for each in (SuccessiveHalving, Hyperband, AsynchronousHalving, PopulationBased)}


def restored(run_dir: Path, note: Any) -> tuple[SuccessiveHalving | PopulationBased | None, list[str]]:
    """The search that a checkpoint's note describes, and notes for the user. Raises CheckpointError for a note that
    to_dict() does not make."""
    if note is None:
        return None, []
    told: list[str] = []
    try:
        settings = dict(note)
        method = METHODS[settings.pop("method")]
        if method is PopulationBased:
            settings["lineage"], told = Lineage.restored(run_dir, settings["lineage"])
        if method is AsynchronousHalving:
            settings["arrivals"] = Arrivals.load(run_dir, settings["arrivals"])
        return method(**settings), told
    except CheckpointError:  # of Arrivals; it names the file
        raise
    except (GpubpError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{run_dir}: its search, {note!r}, cannot go on: {error!r}") from None
