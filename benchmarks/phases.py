"""A run of the command line in a separate process, and the seconds of its parts: python -c "from benchmarks import
phases; phases.main(...)".

start: until the first of the others: interpreter, imports, data, the choice of the engine, kernels compiled or found.
steps: the calls of the engine. evaluation. writing: checkpoints, tables, curves. A nested part does not count in the
outer one. Each call waits for the GPU, so that its time counts there.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("steps", "evaluation", "writing")


class Clock:
    """spent: the seconds of every part. begun: when the process was started, by time.monotonic()."""

    def __init__(self, begun: float) -> None:
        self.begun, self.spent = begun, dict.fromkeys(("start", *PARTS), 0.0)
        self.inside: list[float] = []  # seconds of calls inside those still running

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, with its seconds counted as `part`."""

        @functools.wraps(call)
        def counted(*given: Any, **named: Any) -> Any:
            begun = time.monotonic()
            self.spent["start"] = self.spent["start"] or begun - self.begun
            self.inside.append(0.0)
            try:
                found = call(*given, **named)
                if part != "writing":
                    _wait(given[0])
                return found
            finally:
                spent = time.monotonic() - begun
                self.spent[part] += spent - self.inside.pop()
                if self.inside:
                    self.inside[-1] += spent

        return counted


def _wait(place: Any) -> None:
    """Wait for the devices of a Place."""
    from gpubp.system import gpus

    shards = getattr(place, "shards", None)
    for device in [place.state.population.device] if shards is None else [shard.device for shard in shards]:
        gpus.wait(device)


def watch(clock: Clock) -> None:
    """Time the parts of a run."""
    from gpubp.placing import placement
    from gpubp.reporters import tensorboard
    from gpubp.runs import saving

    for place in (placement.Home, placement.Shards):
        for name, part in (("run", "steps"), ("evaluate", "evaluation")):
            setattr(place, name, clock.timed(part, getattr(place, name)))
    curves = tensorboard.TensorBoardReporter
    for owner, names in (
        (saving.Saving, ("write", "results")),
        (curves, ("start", "looked", "finish")),
    ):
        for name in names:
            setattr(owner, name, clock.timed("writing", getattr(owner, name)))


def main(begun: str, out: str, *words: str) -> None:
    """Run the command line; write the seconds of its parts to the file `out`."""
    from gpubp import cli

    clock = Clock(float(begun))
    watch(clock)
    status = cli.main(list(words))
    Path(out).write_text(json.dumps(clock.spent))
    sys.exit(status)
