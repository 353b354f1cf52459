"""Asynchronous successive halving, ASHA: a network that reaches a rung continues if it is among the best that have
reached it so far. So the networks of a design need not train at the same time: they can stream through slots.

The rungs are those of halving.py. Of n networks that have reached a rung, including those of this evaluation, the best
n / factor continue, rounded down, at least one. Among equals, earlier arrivals are better, then earlier rows. A network
that diverges, or that patience stops, at a rung or on its way there counts as reaching it at once, as the worst: it
takes no other's place. So which networks continue depends on those before, by the rows and the number of slots; one
that continues is bit for bit what it is alone. With entities, networks are only compared within their entity.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar, "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020. As in Ray Tune's ASHAScheduler, networks stop; the paper pauses them and may promote them later.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.history import Records
from ..errors import CheckpointError, ConfigError
from ..evaluate import Round
from ..line import counted
from ..runs.run import Run
from ..system.arrays import Array
from ..system.threads import one_thread
from .halving import SuccessiveHalving
from .method import compared, figures


class Arrivals(Records):
    """The networks that reached a rung in each round, by their rows in the results, with the rung, from 0, and the
    figure that compares them; less is better."""

    name = "arrivals.jsonl"

    @staticmethod
    def sound(record: Any) -> bool:
        """Whether decisions can continue from `record`."""
        network, rung, figure = (record[name] for name in ("network", "rung", "figure"))
        whole = all(type(each) is int and each >= 0 for each in (record["round"], *network, *rung))
        return whole and all(type(each) is float for each in figure) and 0 < len(network) == len(rung) == len(figure)


@dataclass
class AsynchronousHalving(SuccessiveHalving):
    """factor, min_resources: as in SuccessiveHalving; the results get the same column rung. arrivals: the networks that
    have reached a rung so far."""

    arrivals: Arrivals = field(default_factory=Arrivals, repr=False)
    name, streams = "asha", True

    def begin(self, runs: Sequence[Run]) -> list[str]:
        """See SuccessiveHalving; after a resume, restore earlier arrivals. Raises ConfigError for folds, and
        CheckpointError for arrivals that the run cannot have."""
        if runs[0].folds:
            raise ConfigError(
                "asha: it compares networks one by one, and a setting has one in each fold: SuccessiveHalving "
                "(--search halving) expected"
            )
        told = super().begin(runs)
        if not any(run.number for run in runs):
            self.arrivals = Arrivals()
        self.compared = compared(runs)
        self.come: dict[int, Array] = {}  # figures by entity and rung, ascending
        self.next = torch.zeros_like(self.entity)  # each network's next rung
        for record in self.arrivals:
            if max(record["network"]) >= len(self.next) or max(record["rung"]) >= len(self.rungs):
                raise CheckpointError(f"{Arrivals.name} has networks or rungs that the run has not")
            figure = torch.tensor(record["figure"], dtype=torch.float64)
            self._places(torch.tensor(record["network"]), torch.tensor(record["rung"]), figure)
        return told

    def _told(self, begins: int, what: str, whose: str, interval: int, length: str) -> str:
        ends = ", ".join(f"{number * interval:,}" for number in self.rungs)
        who = f"{counted(len(self.entity), what)}{whose}"
        return f"asha: {who}, of which one in {self.factor} goes on after {ends} of {length}"

    @one_thread()
    def decide(self, number: int, runs: Sequence[Run], found: Sequence[Round]) -> None:
        """Stop the networks that have reached a rung and do not continue."""
        rungs, parts = torch.tensor(self.rungs), []
        for run, figure in zip(runs, figures(runs, found, self.compared)):
            at, ended = self.round_of(run), ~run.state.running
            rung = torch.searchsorted(rungs, at)
            there = (ended & (rung < len(rungs))) | torch.isin(at, rungs)
            come = there & (rung == self.next[run.rows])  # else it arrived earlier and is still in its slot
            parts.append((run.rows[come], rung[come], figure.masked_fill(ended, math.inf)[come]))
        rows, rung, figure = (torch.cat(each) for each in zip(*parts))
        if not len(rows):
            return
        order = rows.argsort()
        rows, rung, figure = rows[order], rung[order], figure[order].double()
        self.arrivals.append(
            {"round": number, "network": rows.tolist(), "rung": rung.tolist(), "figure": figure.tolist()}
        )
        place, came = self._places(rows, rung, figure)
        stops = rows[place >= (came // self.factor).clamp(min=1)]
        for run in runs:
            run.stop(torch.isin(run.rows, stops))

    def _places(self, rows: Tensor, rung: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
        """(K,) each, for networks that reach rungs at the same time, in the order of their rows: how many of their
        entity that have reached the rung are better, and how many have reached it."""
        place, came = torch.empty_like(rows), torch.empty_like(rows)
        self.next[rows] = rung + 1
        where = self.entity[rows] * len(self.rungs) + rung
        order = where.argsort(stable=True)
        for some in order.split(where[order].unique_consecutive(return_counts=True)[1].tolist()):
            here, new = int(where[some[0]]), figure[some].numpy()
            before, best = self.come.get(here, np.empty(0)), new.argsort(kind="stable")
            ahead = before.searchsorted(new[best], "right")
            place[some[best]] = torch.from_numpy(ahead + np.arange(len(new)))
            self.come[here] = np.insert(before, ahead, new[best])  # a fifth of the time of sorting a million
            came[some] = len(self.come[here])
        return place, came
