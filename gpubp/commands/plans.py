"""--plan: what `train` would train, and what that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from . import designs

if TYPE_CHECKING:
    import torch

    from ..runs.design import Design
    from ..runs.loop import Search
    from ..samples.sources import Prepared


def check(settings: dict[str, Any]) -> None:
    """Refuse settings that have no plan. Raises ConfigError."""
    if settings["data"] == "tutorial":
        raise ConfigError("--plan: --data tutorial does not have it")
    if settings["cluster"] is not None:
        raise ConfigError(f"--plan and --cluster {settings['cluster']}: one of them expected")


def tell(
    settings: dict[str, Any], prepared: Prepared, design: Design, dtype: torch.dtype, search: Search | None
) -> int:
    """Print the plan. -> exit status. Raises what training would raise before it begins."""
    from ..runs import planning
    from .printing import console, print_json
    from .study_tables import parts

    data = prepared.training, prepared.validation
    waiting = planning.first(design, *data, settings["seed"], dtype, settings["slots"], {})[1]
    found = planning.planned(waiting, *data, settings["engine"], settings["device"], search)
    if settings["json"]:
        print_json(found.to_dict())
        return 0
    print("\n".join([*prepared.about, *designs.shortfall(settings)]))
    parts(console(), found)
    print(f"\n{found}")
    return 0
