"""A file with the state dict of a network as a torch.nn.Module, model.network(row), or of a ModuleList of several.

torch.load(path, weights_only=True), torch's default, reads it without executing anything. It does not hold the
topology: load it with `model.network(row).load_state_dict(...)`, or into a module with the same parts.
"""

from pathlib import Path

import torch
from torch import nn

from ..system import files
from .members import Members
from .modules import PreparedNetwork, sequential


def write(members: Members, path: Path) -> None:
    """Write a .pt file. Raises OSError, and SpecError for an activation that torch.nn does not have."""
    networks: dict[int, nn.Module] = {}
    for group in members.groups:
        for row, place in zip(group.params, group.place.tolist()):
            bare = sequential(group.spec, row.cpu())
            networks[place] = bare
            if members.preparation is not None:
                own = members.preparation.at(int(members.position[place]))
                networks[place] = PreparedNetwork(bare, own, group.spec.loss)
    several = nn.ModuleList(networks[place] for place in range(len(members)))
    state = (several if len(several) > 1 else several[0]).state_dict()
    files.write(path, lambda beside: torch.save(state, beside))
