"""What shuffling costs: the order of the samples alone, and a whole step of the eager engine under each `shuffle`."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

from gpubp.backprop import blocks

from .harness import interleave, ratio
from .peers import Eager
from .workloads import Workload

SHUFFLES = ("none", "shared", "network")
OPTIMIZER = "sgd"  # the cheaper step, of which the order is the larger share


def order(contender: Eager, shuffle: str) -> int:
    """Compute the samples of K steps of every network, block by block like the engine. -> how many positions."""
    state, data = contender.state, contender.data
    population, batch, steps, positions = state.population, state.config.batch_size, contender.steps, 0
    for part in blocks(population.spec, population.count, batch, population.params.element_size()):
        networks = population.ids[part], state.position[part], state.step[part]
        positions += data.order(population.seed, *networks, steps, batch, shuffle).numel()
    return positions


def cost(workload: Workload, rounds: int, seed: int, device: str) -> dict[str, dict[str, Any]]:
    """For each shuffle: ns per position that it computes, its share of a step in data order, and the time of a step
    under it over the time of one in data order, gathering included."""
    problem = workload.problem(OPTIMIZER, device=device)
    contenders = {shuffle: Eager(problem, shuffle) for shuffle in SHUFFLES}
    positions = {shuffle: order(contenders[shuffle], shuffle) for shuffle in SHUFFLES}
    for contender in contenders.values():
        contender.call()
    calls = {f"step {shuffle}": contenders[shuffle].call for shuffle in SHUFFLES}
    calls |= {f"order {shuffle}": partial(order, contenders[shuffle], shuffle) for shuffle in SHUFFLES}
    seconds = interleave(calls, rounds, seed, device)
    return {
        shuffle: {
            "positions": positions[shuffle],
            "ns_per_position": 1e9 * statistics.median(seconds[f"order {shuffle}"]) / positions[shuffle],
            "share_of_step": ratio(seconds[f"order {shuffle}"], seconds["step none"]),
            "step_over_unshuffled": ratio(seconds[f"step {shuffle}"], seconds["step none"]),
        }
        for shuffle in SHUFFLES
    }
