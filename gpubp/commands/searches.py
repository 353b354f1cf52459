"""--search: which networks of a run continue, and how hyper-parameters are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, lookup
from ..system.flags import COUNT, TEXT

if TYPE_CHECKING:
    from ..runs.loop import Search
    from ..settings.config import TrainConfig

PARTS = 20  # default number of pbt's exchanges


def flags(add: Callable[..., None]) -> None:
    """The flags of `train` for searches."""
    add("--sampling", TEXT, "how ranges are drawn: sobol, or random, which draws from lists too", "sobol")
    add(
        "--search",
        TEXT,
        "halving and hyperband stop the worst networks early; so does asha, asynchronous halving, whose networks may "
        "wait for slots; pbt, population based training, overwrites them with copies of the best, whose "
        "hyper-parameters it changes within their ranges and lists",
    )
    add(
        "--budget",
        COUNT,
        "epochs, or steps, before halving, hyperband and asha first stop networks, or between two exchanges of pbt; by "
        "default the training divided by factor^3, or by 20, if evaluations allow that",
    )
    add(
        "--factor",
        COUNT,
        "of halving, hyperband and asha: one network of so many goes on, for so many times as long; 3",
    )


def search(settings: dict[str, Any], configs: Callable[[], Sequence[TrainConfig]]) -> Search | None:
    """The search of `settings`. configs: those of all networks."""
    from ..search import METHODS, PopulationBased
    from ..search.method import asked
    from ..settings.config import HYPER
    from ..settings.recipe import STOPPING

    name, budget, factor = (settings[each] for each in ("search", "budget", "factor"))
    for flag in ("budget", "factor"):
        if settings[flag] is not None and (name is None or (name, flag) == ("pbt", "factor")):
            kinds = "halving, hyperband, asha" + (", pbt" if flag == "budget" else "")
            raise ConfigError(f"--{flag} {settings[flag]}: only with --search {kinds}")
    if name is None:
        return None
    method = lookup(METHODS, name, "search", ConfigError)
    factor = 3 if factor is None else factor
    if budget is None:
        each = configs()
        interval, part = asked(name, each) or 1, PARTS if name == "pbt" else factor**3
        budget = interval * max(1, max(config.longest for config in each) // part // interval)
    if method is PopulationBased:
        names = (each for each in HYPER if each not in STOPPING)
        space = {each: settings[each] for each in names if any(sign in str(settings[each]) for sign in ("..", ","))}
        return PopulationBased(budget, space=space or None, seed=settings["seed"])
    return method(factor, budget)
