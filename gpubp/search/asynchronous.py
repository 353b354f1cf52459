"""Asynchronous successive halving, ASHA: a network that comes to a rung goes on if it is among the best of those that
have come there so far. So the networks of a design need not train at the same time: they can stream through slots.

The rungs are those of halving.py. Of n networks that have come to one, those of this evaluation among them, the best
n / factor go on, rounded down, at least one. Of equal ones those that came earlier are better, then those in earlier
rows. What ends for itself at a rung or on the way to it, as by patience, or diverges, counts there at once, as the
worst: it needs no place. So who goes on depends on who came before, by the rows and the number of slots; a network that
goes on is bit for bit what it is alone. Networks of entities are compared with those of their own entity alone.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar, "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020. As in Ray Tune's ASHAScheduler networks stop, where the paper pauses and may promote them later.
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
from ..results.result import comparable
from ..runs.run import Run
from ..system.arrays import Array
from ..system.threads import one_thread
from .halving import SuccessiveHalving
from .method import figures


class Arrivals(Records):
    """Of each round the networks that have come to a rung, by their rows in the results, with the rung, from 0, and the
    figure that compares them, less is better."""

    name = "arrivals.jsonl"

    @staticmethod
    def sound(record: Any) -> bool:
        """Whether decisions can go on from `record`."""
        network, rung, figure = (record[name] for name in ("network", "rung", "figure"))
        whole = all(type(each) is int and each >= 0 for each in (record["round"], *network, *rung))
        return whole and all(type(each) is float for each in figure) and 0 < len(network) == len(rung) == len(figure)


@dataclass
class AsynchronousHalving(SuccessiveHalving):
    """factor, min_resources: as of SuccessiveHalving, and the results get the same column rung. arrivals: who has come
    to a rung so far."""

    arrivals: Arrivals = field(default_factory=Arrivals, repr=False)
    name, streams = "asha", True

    def begin(self, runs: Sequence[Run]) -> list[str]:
        """See SuccessiveHalving; after a resume, look at who came before. Raises ConfigError for folds, and
        CheckpointError for those who came before and are not of the run."""
        if runs[0].folds:
            raise ConfigError(
                "asha: it compares networks one by one, and a setting has one in each fold: SuccessiveHalving "
                "(--search halving) expected"
            )
        told = super().begin(runs)
        if not any(run.number for run in runs):
            self.arrivals = Arrivals()
        self.compared = "loss" if comparable([run.state for run in runs]) else "metric"
        self.come: dict[int, Array] = {}  # of each entity and rung their figures, ascending
        self.next = torch.zeros_like(self.entity)  # rung, of each network
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
        """Stop those that have come to a rung and do not go on."""
        rungs, parts = torch.tensor(self.rungs), []
        for run, figure in zip(runs, figures(runs, found, self.compared)):
            at, ended = self.round_of(run), ~run.state.running
            rung = torch.searchsorted(rungs, at)
            there = (ended & (rung < len(rungs))) | torch.isin(at, rungs)
            come = there & (rung == self.next[run.rows])  # else it was there before, and is still in its slot
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
        """(K,) both: of networks that come to rungs at the same time, in the order of their rows, how many of those of
        their entity that have come there are before each, and how many have come."""
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
