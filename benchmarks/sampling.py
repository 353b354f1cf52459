"""What the real case costs: the order of the samples alone, and the share of plain SGD's rate that is left with Adam,
a learning rate per network and an order per network."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from typing import Any

from gpubp.backprop import blocks

from .harness import Setting, interleave, ratio
from .peers import Engine
from .workloads import Workload

SHUFFLES = ("none", "shared", "network")
OPTIMIZER = "sgd"  # the cheaper step, of which the order is the larger share

# The cases: optimizer, a learning rate per network, shuffle. The first is what the others are a share of.
CASES = {
    "sgd": ("sgd", False, "none"),
    "sgd, own order": ("sgd", False, "network"),
    "adam": ("adam", False, "none"),
    "adam, own lr": ("adam", True, "none"),
    "adam, own lr, own order": ("adam", True, "network"),
}
REAL_GOALS = {"W2": 0.5, "W3-N256": 0.6, "W4-N64": 0.6}  # least share of the last case


def order(contender: Engine, shuffle: str) -> int:
    """Compute the samples of K steps of every network, block by block like eager. -> how many positions."""
    state, data = contender.state, contender.data
    population, batch, steps, positions = state.population, state.recipe.batch_size, contender.steps, 0
    for part in blocks(population.spec, population.count, batch, population.params.element_size(), population.device):
        networks = population.ids[part], state.position[part], state.step[part][:1]
        positions += data.order(population.seed, *networks, steps, batch, shuffle).numel()
    return positions


def cost(workload: Workload, engine: str, setting: Setting) -> dict[str, dict[str, Any]]:
    """For each shuffle: ns per position that torch's order() computes, its share of a step in data order, and the time
    of a step under it over the time of one in data order, gathering included, of the named engine."""
    problem = workload.problem(OPTIMIZER, device=setting.device)
    contenders = {shuffle: Engine(problem, engine, shuffle) for shuffle in SHUFFLES}
    positions = {shuffle: order(contenders[shuffle], shuffle) for shuffle in SHUFFLES}
    for contender in contenders.values():
        contender.call()
    calls = {f"step {shuffle}": contenders[shuffle].call for shuffle in SHUFFLES}
    calls |= {f"order {shuffle}": partial(order, contenders[shuffle], shuffle) for shuffle in SHUFFLES}
    seconds = interleave(calls, setting)
    return {
        shuffle: {
            "positions": positions[shuffle],
            "ns_per_position": 1e9 * statistics.median(seconds[f"order {shuffle}"]) / positions[shuffle],
            "share_of_step": ratio(seconds[f"order {shuffle}"], seconds["step none"]),
            "step_over_unshuffled": ratio(seconds[f"step {shuffle}"], seconds["step none"]),
        }
        for shuffle in SHUFFLES
    }


def real_case(workload: Workload, engine: str, setting: Setting) -> dict[str, dict[str, Any]]:
    """For each case of CASES: network-steps/s, and their share of plain SGD's, round by round."""
    contenders = {}
    for case, (optimizer, own_lr, shuffle) in CASES.items():
        problem = replace(workload, own_lr=own_lr).problem(optimizer, device=setting.device)
        contenders[case] = Engine(problem, engine, shuffle)
        contenders[case].call()
    seconds = interleave({case: contender.call for case, contender in contenders.items()}, setting)
    first = seconds["sgd"]
    return {
        case: {
            "rate": workload.networks * workload.steps / statistics.median(own),
            "share": ratio(first, own),
            "seconds": own,
        }
        for case, own in seconds.items()
    }
