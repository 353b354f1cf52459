"""Populations side by side: a population that cannot keep all threads busy leaves the rest to others.

Each population takes its share of the room: torch's threads on a CPU, or streams on a GPU. Populations that fit run at
the same time, in Python threads, large shares first. Reporters, files, and all that concerns several populations stay
in the calling thread. No bit depends on any of this.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from queue import SimpleQueue
from typing import TypeVar

import torch

from ..system.threads import use
from .run import Run

STREAMS = 16  # of a GPU used at once
Found = TypeVar("Found")
Tell = Callable[[list[str]], None]


class Crew:
    """over: whether all should end soon, because one has failed or the calling thread was interrupted. under_way: the
    runs that are at work. signals: the list to which signals that end the training are added; compiling: called with
    the number of runs whose kernels are still to be compiled."""

    def __init__(self, where: Sequence[torch.device], compiling: Callable[[int], None]) -> None:
        self.signals, self.compiling = list[int](), compiling
        self.room = STREAMS if where[0].type == "cuda" else torch.get_num_threads()
        self.over, self.streams = False, count()
        self.under_way: list[Run] = []

    def begin(self, new: Sequence[Run], runs: Sequence[Run]) -> None:
        """Begin the `new` runs, which are among `runs`, each with its share and a stream. A run keeps its share, as
        kernels' layouts depend on it."""
        for run in new:
            run.share = run.choice.engine.share(run.state, self.room, len(runs))
            if len(runs) > 1 and run.share < self.room:
                run.stream = next(self.streams) % STREAMS
            run.begin()

    def compile_ahead(self, runs: Sequence[Run]) -> None:
        """Compile the kernels of the runs that have any; none after a signal has come."""
        runs = [run for run in runs if run.choice.compiles]

        def compile_ahead(run: Run) -> None:
            if not self.signals:
                with run.threads():
                    run.compile_ahead()

        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), "gpubp-compile") as pool:  # two kernels each
            try:
                for done, _ in enumerate((pool.map if len(runs) > 1 else map)(compile_ahead, runs), 1):
                    if left := len(runs) - done:
                        self.compiling(left)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # those that have not begun
                raise

    def each(self, runs: Sequence[Run], work: Callable[[Run, Tell], Found], tell: Tell) -> list[Found]:
        """work(run, tell) for each. What a run tells is passed to `tell` in the calling thread."""
        if len(runs) > 1 and min(run.share for run in runs) < self.room:
            return self._together(runs, work, tell)
        found = []
        for run in runs:
            self.under_way = [run]
            with run.threads():
                found.append(work(run, tell))
        return found

    def _together(self, runs: Sequence[Run], work: Callable[[Run, Tell], Found], tell: Tell) -> list[Found]:
        news: SimpleQueue[list[str] | Future[Found]] = SimpleQueue()
        begun: dict[Future[Found], Run] = {}

        def working(run: Run) -> Found:
            if run.where[0].type == "cpu":
                use(run.share)
            return work(run, news.put)

        waiting, self.under_way = sorted(runs, key=lambda run: -run.share), []
        with ThreadPoolExecutor(self.room, "gpubp-run") as pool:
            try:
                while waiting or self.under_way:
                    free = self.room - sum(run.share for run in self.under_way)
                    fits = next((run for run in waiting if run.share <= free), None)
                    if fits is not None:
                        waiting.remove(fits)
                        self.under_way.append(fits)
                        future = pool.submit(working, fits)
                        begun[future] = fits
                        future.add_done_callback(news.put)
                    elif isinstance(what := news.get(), Future):
                        self.under_way.remove(begun[what])
                        what.result()  # raises its error
                    else:
                        tell(what)
            except BaseException:
                self.over = True
                raise
        found = {run: future.result() for future, run in begun.items()}
        return [found[run] for run in runs]
