"""A killed run resumes to the bits of one that is not: it trains in its own process, killed by SIGKILL between two
checkpoints. As a program, `python -m gpubp.verify.killed FOLDER`, this file is that process."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import checkpoint
from ..errors import CheckpointError
from ..reporters import Reporter
from ..resumed.resume import resume
from ..runs.training import train_many
from ..system.ambient import HOME
from .comparing import Found, Row, checked, compare
from .subject import Subject, networks

PATIENCE = 300  # seconds that the process may take
PLANTED = "a checkpoint one step too early"
RUN, GIVEN = "run", "given.pickle"


def row(subject: Subject, folder: Path, death: Future[None]) -> Row:
    """The promise, tested by the run killed in `folder`, which is resumed twice: as it is, and from a wrong step."""
    row = Row("a killed run resumes", "after SIGKILL between two checkpoints, and without", PLANTED)
    if subject.custom:
        return row.without(f"another process does not have the custom rule {', '.join(subject.custom)}")

    def check(wrong: bool) -> Found:
        death.result()
        own = Path(shutil.copytree(folder / RUN, folder / f"resumed, wrong: {wrong}"))
        if wrong:
            _turn_back(own)
        return compare(networks(resume(own, subject.data, device=str(subject.device))), subject.whole)

    return checked(row, check)


def kill(subject: Subject, folder: Path) -> None:
    """Train in a process that kills itself. Raises CheckpointError unless that happens between begin and end."""
    if subject.custom:
        return
    names = ("design", "data", "seed", "dtype", "engine", "device")
    (folder / GIVEN).write_bytes(pickle.dumps({name: getattr(subject, name) for name in names}))
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    told = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    if told.returncode != -signal.SIGKILL:
        last = told.stderr.strip().splitlines()[-1:] or ["no message"]
        raise CheckpointError(f"the process to kill ended before that, with status {told.returncode}: {last[0]}")
    for saved in checkpoint.load(folder / RUN, HOME).populations:
        if not bool(((saved.state.step > 0) & (saved.state.step < saved.state.end)).any()):
            raise CheckpointError("the run was not killed between its first and its last step")


def _turn_back(run: Path) -> None:
    """Turn back the checkpoint's clock by one step, for every network that trains."""
    saved = checkpoint.load(run, HOME)
    for state in (each.state for each in saved.populations):
        state.step -= (state.running & (state.step > 0)).long()
        if "best_step" in state.memory:  # a step in the future would be refused
            torch.minimum(state.memory["best_step"], state.step[:, None], out=state.memory["best_step"])
    checkpoint.save(run, saved.populations, saved.notes)


class Killer(Reporter):
    """Ends its process, like a failing machine, in the steps after the first evaluation."""

    seen = False

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """A checkpoint follows soon."""
        self.seen = True

    def progress(self, progress: Any) -> None:
        """Now there are steps that no checkpoint has."""
        if self.seen:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path) -> None:
    """The process to be killed."""
    given = pickle.loads((folder / GIVEN).read_bytes())
    train_many(**given, run_dir=folder / RUN, checkpoint_minutes=0.0, reporters=[Killer()])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
