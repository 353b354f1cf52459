"""Pace: how many steps a call of the engine takes, and how far calls have come. Both are estimates: between two looks
at the clocks nothing is read back, so that neither a GPU nor the host waits for the other.
"""

import time
from collections import deque

import numpy as np

from ..population import Population
from ..state import RUNNING, TrainState

GROWTH = 4  # at most, of a call over the one before
LAYER, RATE = 0.002, 1e7  # of a step on the slowest machine: seconds per layer, and weights times samples per second


def slowest(population: Population, batch: int) -> float:
    """Seconds of a step with batches of `batch` samples: an upper bound for any machine."""
    return LAYER * len(population.spec.widths) + population.params.numel() * batch / RATE


class Pace:
    """length: the estimated steps of a call that takes `wanted` seconds, at most `most`; for the first calls, by
    `slowest`, the most seconds a step takes. rate: network-steps/s, 0 until known. Since the last look: left: the most
    steps that any network has until the end of the round; taken: steps of the calls; running: networks, at that look;
    whole: the TrainState's `expected` then."""

    def __init__(self, wanted: float, most: int, slowest: float) -> None:
        self.wanted, self.most = wanted, most
        self.length, self.rate = max(1, min(most, int(wanted / slowest))), 0.0

    def look(self, state: TrainState) -> None:
        """Read the clocks of `state`, after they were updated or changed."""
        step, running = state.step.numpy(), state.status.numpy() == RUNNING
        left = state.limit.numpy() - step
        self.each = left[running & (left > 0)]
        self.count, self.left, self.taken = len(self.each), 0, 0
        if self.count:
            self.left = int(self.each.max())
        self.alike = not self.count or int(self.each.min()) == self.left
        self.before, self.running = int(step.sum()), int(np.count_nonzero(running))
        self.whole = state.expected
        self.calls: deque[int] = deque(maxlen=3)

    @property
    def done(self) -> int:
        """Network-steps so far, if no network has diverged since the last look."""
        return self.before + (self.taken * self.count if self.alike else int(np.minimum(self.each, self.taken).sum()))

    def next(self, least: int) -> int:
        """Steps of the call that begins now: `least` or more, if that many are left."""
        if not self.taken:
            self.begun = self.last = time.monotonic()
        return min(self.left, self.most, max(self.length, least))

    def returned(self, steps: int) -> None:
        """A call has returned. On a GPU it returns when the call two before it is done. Which of the two took the time
        since the last return is unknown, so the shorter one is assumed."""
        done, now = self.done, time.monotonic()
        seconds, self.last = max(now - self.last, 1e-6), now
        self.taken, self.left = self.taken + steps, self.left - steps
        self.calls.append(steps)
        if len(self.calls) < 3 or steps < self.length:  # a shorter call, at the end of a round, says too little
            return
        sure = min(steps, self.calls[0])
        self.rate = (self.done - done) / steps * sure / seconds
        kept = min(steps, round(steps * self.wanted / seconds))
        self.length = self._within(max(kept, round(sure * self.wanted / seconds)), steps)

    def settled(self, state: TrainState) -> None:
        """All calls are done, and the clocks of `state` are up to date."""
        before, taken = self.before, self.taken
        self.look(state)
        if taken:
            seconds = max(time.monotonic() - self.begun, 1e-6)
            self.rate = (self.before - before) / seconds
            self.length = max(self.length, self._within(round(taken * self.wanted / seconds), taken))

    def _within(self, steps: int, before: int) -> int:
        return max(1, min(self.most, GROWTH * before, steps))
