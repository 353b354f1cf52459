"""train() and resume(): the loop of run, look, decide, report, save.

Evaluations come from the configuration alone and define rounds: in a round every network trains to the step at which
its next evaluation is due. Whatever the clock decides (progress, timed checkpoints, Ctrl-C) only cuts a call of the
engine short, which changes no bit.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import torch
import yaml
from torch import Tensor

from . import checkpoint, memory
from .config import TrainConfig
from .data import Dataset
from .engines import Choice, choose
from .errors import CheckpointError, ConfigError
from .evaluate import Evaluation, metric_name
from .placement import HOME, Devices, devices, placed
from .population import Population, usable
from .reporters import Progress, Reporter, Start, counts, quantiles
from .reporters.table import table, write
from .schedules import scheduled
from .state import Status, TrainState
from .stopping import plateau

CALL = 0.25  # seconds that one call of the engine should take
MOST = 1024  # steps of one call at most: the order of samples is computed for all of them at once


@dataclass(frozen=True, eq=False)
class Result:
    """What a training left.

    population: the trained networks, each at its last step that left finite numbers, on the device of the given ones.
    loss and metric (N,): over each network's training samples at its end;
    validation_loss, validation_metric: over the validation data, or None.
    status: a name per network. table: a row per network (pyarrow). history: a record per evaluation. notes: what went
    otherwise than asked for, such as memory that ran out. interrupted: the signal that ended the run early, or None.
    seconds: in training, evaluations included.
    """

    population: Population
    loss: Tensor
    metric: Tensor
    validation_loss: Tensor | None
    validation_metric: Tensor | None
    status: list[str]
    statuses: dict[str, int]
    table: pa.Table
    history: list[dict[str, Any]]
    notes: list[str]
    state: TrainState
    engine: str
    engine_reason: str
    seconds: float
    network_steps: int
    run_dir: Path | None
    interrupted: int | None

    def ranking(self) -> Tensor:
        """Rows of the networks that did not diverge, the best first: by validation loss, or else by loss."""
        return ranking(self.state, self.loss if self.validation_loss is None else self.validation_loss)


def ranking(state: TrainState, loss: Tensor) -> Tensor:
    """Rows of the networks that did not diverge, by `loss` (N,), the least first."""
    order = torch.argsort(loss.nan_to_num(float("inf")), stable=True)
    return order[state.status[order] != Status.diverged]


def train(
    population: Population,
    data: Dataset,
    config: TrainConfig,
    validation: Dataset | None = None,
    engine: str = "auto",
    reporters: Sequence[Reporter] = (),
    inplace: bool = False,
    run_dir: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    settings: Mapping[str, Any] | None = None,
    device: Devices | None = None,
) -> Result:
    """Train every network of `population` on `data`, as `config` says.

    device: where to train, by default where the population is: "cpu", "cuda", "cuda:1"; "cuda:all", or several, share
    the networks. The result's state and figures are in the processor's memory.
    validation: samples to evaluate on. reporters: see reporters/. inplace: write the trained numbers over
    population.params too. run_dir: a new directory for checkpoints (every few minutes, at the end, on Ctrl-C and
    SIGTERM), results.parquet, results.csv and config.yaml, which holds `settings` or else specification and
    configuration. Ctrl-C and SIGTERM end the run after the present call; a second Ctrl-C at once.

    Raises, before anything is trained or written, ShapeError, DataError, ConfigError, DeviceError, EngineError,
    OutOfMemoryError.
    """
    spec, params = population.spec, population.params
    if not checkpoint_minutes >= 0:
        raise ConfigError(f"checkpoint_minutes {checkpoint_minutes}: 0 or more expected")
    config = replace(config, evaluate_every=config.interval)
    where = devices(params.device if device is None else device)
    data, held_out = _ready(population, data), None
    if validation is not None:
        held_out = _ready(population, validation)
    choice = choose(engine, spec, config, where[0], params.dtype)
    folder = None if run_dir is None else _new(Path(run_dir))
    memory.check(spec, config, population.count, params.element_size(), HOME)
    with memory.explained(spec, config, population.count, params.element_size(), where[0]):
        own = replace(
            population, params=params.to(HOME, copy=True).contiguous(), ids=population.ids.to(HOME, copy=True)
        )
        state = TrainState.start(own, config, data)
        loop = Loop(state, data, held_out, choice, where, tuple(reporters), folder, checkpoint_minutes)
        if folder is not None:
            chosen = _settings(population, config, choice) if settings is None else dict(settings)
            try:
                folder.mkdir(parents=True)
                text = f"# {choice.reason}\n{yaml.safe_dump(chosen, sort_keys=False)}"
                (folder / "config.yaml").write_text(text, encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"run directory {folder} cannot be made: {error.strerror}") from None
        result = loop.run()
        if inplace:
            params.copy_(state.population.params)
        return replace(result, population=result.population.to(params.device))


def resume(
    run_dir: str | Path,
    data: Dataset,
    validation: Dataset | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    reporters: Sequence[Reporter] = (),
    device: Devices = "cpu",
    checkpoint_minutes: float = 5.0,
) -> Result:
    """Go on with the run in `run_dir`, to the same bits as if it had never stopped; with `epochs` or `steps`, more of
    them than before, as if it had been begun with so many. Raises CheckpointError where run or data are not those."""
    folder, where = Path(run_dir), devices(device)
    saved = checkpoint.load(folder, HOME)
    state, notes = saved.state, saved.notes
    data = _ready(state.population, data)
    held_out = None if validation is None else _ready(state.population, validation)
    own = state.population
    choice = choose(notes["engine"], own.spec, state.config, where[0], own.params.dtype)
    choice = choice._replace(reason=notes["engine_reason"])
    loop = Loop(state, data, held_out, choice, where, tuple(reporters), folder, checkpoint_minutes)
    for name, fingerprint in loop.fingerprints.items():
        if notes[name] != fingerprint:
            raise CheckpointError(f"{folder}: the {name} are not those that the run was begun with")
    if epochs is not None or steps is not None:
        _extend(state, data, epochs, steps)
    loop.number, loop.history, loop.seconds = notes["number"], notes["history"], notes["seconds"]
    shape = state.population.spec, state.config, state.population.count, state.population.params.element_size()
    with memory.explained(*shape, where[0]):
        return loop.run()


def load(run_dir: str | Path, device: str | torch.device = "cpu") -> Population:
    """The networks of a run, as its last checkpoint has them. Raises CheckpointError for one that cannot be trusted."""
    return checkpoint.load(Path(run_dir), usable(device)).state.population


def _ready(population: Population, data: Dataset) -> Dataset:
    """`data`, checked, at home, as precise as the networks are."""
    data.check(population.spec, population.count)
    return data.to(HOME, population.params.dtype)


def _new(folder: Path) -> Path:
    if folder.exists():
        raise ConfigError(
            f"run directory {folder} exists already; name a new one, or go on with it: gpubp resume {folder}"
        )
    return folder


def _settings(population: Population, config: TrainConfig, choice: Choice) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        many = torch.as_tensor(value) if isinstance(value, (Tensor, list, tuple)) else None
        if many is not None and many.numel() > 1:
            return f"{many.numel()} numbers from {float(many.min()):g} to {float(many.max()):g}"
        return value.item() if isinstance(value, Tensor) else value

    used = {**config.to_dict(), **config.values(population.spec.loss)}
    return {
        "network": population.spec.to_dict(),
        "networks": population.count,
        "seed": population.seed,
        "training": {name: plain(value) for name, value in used.items() if value is not None and name != "extra"},
        "engine": choice.name,
        "engine_reason": choice.reason,
    }


def _extend(state: TrainState, data: Dataset, epochs: int | None, steps: int | None) -> None:
    """Move the end of the training. A network that was finished goes on."""
    name, length = ("epochs", epochs) if steps is None else ("steps", steps)
    if getattr(state.config, name) is None or (epochs is not None and steps is not None):
        other = "steps" if state.config.epochs is None else "epochs"
        raise ConfigError(f"this run counts {other}: give {other}, and nothing else, to make it longer")
    longer = TrainConfig.from_dict({**state.config.to_dict(), name: length})
    end = longer.lengths(data.size(state.position))
    shorter = bool((torch.as_tensor(length) < torch.as_tensor(getattr(state.config, name))).any())
    if shorter or bool((end < state.end).any()):
        raise ConfigError(f"{name} {length} would end networks before where they are to end; give more than before")
    if state.config.timetable.whole and bool((end > state.end).any()):
        raise ConfigError(
            f"schedule {state.config.schedule!r} depends on the length of the training: a longer run is another run; "
            "train anew, or use a schedule that does not, such as step, exponential or inverse_sqrt"
        )
    state.config = longer
    state.end.copy_(end)
    state.status[(state.status == Status.finished) & (state.step < end)] = Status.running


@dataclass
class Loop:
    """A run in progress. number: of the present round, from 1; 0 before the first."""

    state: TrainState
    data: Dataset
    validation: Dataset | None
    choice: Choice
    where: list[torch.device]
    reporters: tuple[Reporter, ...]
    run_dir: Path | None
    checkpoint_minutes: float
    number: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    rate: float = 0.0
    notes: list[str] = field(default_factory=list)

    def run(self) -> Result:
        """To the end of every network, or to a signal."""
        data = [each for each in (self.data, self.validation) if each is not None]
        self.place = placed(self.state, data, self.choice, self.where)
        state, begun, before = self.state, time.monotonic(), self.seconds
        taken = int(state.step.sum())
        sizes = self.data.size(state.position)
        if self.number:  # a resumed round; a longer training may have moved its end
            state.limit.copy_(torch.minimum(self.state.config.round_end(self.number, sizes), state.end))
        start = Start(
            networks=state.population.count,
            parameters=state.population.spec.size,
            steps=int(state.end.sum()),
            done=taken,
            step=int(state.step.max()),
            engine_reason=self.choice.reason,
            run_dir=None if self.run_dir is None else str(self.run_dir),
        )
        for reporter in self.reporters:
            reporter.start(start)
        self.saved, self.call = time.monotonic(), 1
        if self.run_dir is not None and not self.number:
            self.save()  # killed before the first timed one, a run begins anew
        with interruptible() as signals:
            left = int(state.left.max())
            while (left or bool(state.running.any())) and not signals:
                if not left:
                    self.number += 1
                    state.limit.copy_(torch.minimum(state.config.round_end(self.number, sizes), state.end))
                    state.total.zero_()
                    left = int(state.left.max())
                if left:  # a round of less than a batch may have no step
                    self.advance(left)
                    left = int(state.left.max())
                self.seconds = before + time.monotonic() - begun
                if not left:
                    self.look(sizes)
                due = time.monotonic() - self.saved > 60 * self.checkpoint_minutes
                if self.run_dir is not None and due:  # never between a round's last step and its evaluation
                    self.save()
            self.seconds = before + time.monotonic() - begun
            if self.run_dir is not None:
                self.save()
        result = self.result(int(state.step.sum()) - taken, time.monotonic() - begun, next(iter(signals), None))
        if self.run_dir is not None:
            write(result, self.run_dir)
        for reporter in self.reporters:
            reporter.finish(result)
        return result

    def advance(self, left: int) -> None:
        """One call of the engine, as long as a person likes to wait for the next sign of life. left: most steps that
        a network has in this round."""
        state = self.state
        before, begun = int(state.step.sum()), time.monotonic()
        notes = self.place.run(min(self.call, left))
        done = int(state.step.sum())  # a GPU is waited for here
        seconds = max(time.monotonic() - begun, 1e-6)
        self.rate = (done - before) / seconds
        self.call = max(1, min(MOST, 4 * self.call, round(self.call * CALL / seconds)))
        self.notes += notes
        for reporter in self.reporters:
            reporter.progress(Progress(done, self.rate, int(state.running.sum()), tuple(notes)))

    def look(self, sizes: Tensor) -> None:
        """The evaluation at the end of a round, and what it decides."""
        state, config = self.state, self.state.config
        first = torch.minimum(config.round_end(self.number - 1, sizes), state.end)
        mean = state.total.double() / torch.clamp(state.step - first, min=1)
        mean = mean.masked_fill(state.step <= first, float("nan"))
        held_out = self.evaluation(self.validation)
        plateau_loss = mean if held_out is None else held_out.loss
        whole = state.step == config.round_end(self.number, sizes)  # the training may end within a round
        plateau(state, plateau_loss, whole)
        state.status[state.running & (state.step >= state.end)] = Status.finished
        alive = state.status != Status.diverged
        name = metric_name(state.population.spec)
        record = {
            "round": self.number,
            "step": int(state.step.max()),
            "seconds": self.seconds,
            "network_steps_per_second": self.rate,
            "statuses": counts(state.status),
            "loss": quantiles(mean[alive]),
            "validation_loss": None if held_out is None else quantiles(held_out.loss[alive]),
            "metric_name": name,
            "metric": None if held_out is None else quantiles(held_out.metric[alive]),
            "lr": quantiles(self.learning_rate()[alive]),
        }
        self.history.append(record)
        for reporter in self.reporters:
            reporter.evaluated(record)

    def learning_rate(self) -> Tensor:
        """(N,): the scheduled rate of each network's next step."""
        state = self.state
        step, end = state.step[:, None].double(), state.end[:, None].double()
        return scheduled(state.config.timetable, {**state.hyper, **state.plateau}, step, end)[:, 0]

    def evaluation(self, data: Dataset | None) -> Evaluation | None:
        """The networks as they are, on `data`, where there is any."""
        return None if data is None else self.place.evaluate(data)

    @cached_property
    def fingerprints(self) -> dict[str, str | None]:
        """Of the data, read once for all checkpoints."""
        given = {"data": self.data, "validation": self.validation}
        return {name: None if each is None else each.fingerprint() for name, each in given.items()}

    def save(self) -> None:
        """A checkpoint of now."""
        assert self.run_dir is not None
        self.place.gather()
        notes = {
            "number": self.number,
            "history": self.history,
            "seconds": self.seconds,
            "engine": self.choice.name,
            "engine_reason": self.choice.reason,
            **self.fingerprints,
        }
        checkpoint.save(self.run_dir, self.state, notes)
        self.saved = time.monotonic()

    def result(self, steps: int, seconds: float, interrupted: int | None) -> Result:
        """The final evaluation, and everything that a caller may want."""
        state, training = self.state, self.evaluation(self.data)
        assert training is not None
        held_out = self.evaluation(self.validation)
        self.place.gather()
        names = [each.name for each in Status]
        return Result(
            population=state.population,
            loss=training.loss,
            metric=training.metric,
            validation_loss=None if held_out is None else held_out.loss,
            validation_metric=None if held_out is None else held_out.metric,
            status=[names[number] for number in state.status.tolist()],
            statuses=counts(state.status),
            table=table(state, training, held_out, metric_name(state.population.spec)),
            history=self.history,
            notes=[*self.notes, *self.place.news()],
            state=state,
            engine=self.choice.name,
            engine_reason=self.choice.reason,
            seconds=seconds,
            network_steps=steps,
            run_dir=self.run_dir,
            interrupted=interrupted,
        )


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of ending at once; a second SIGINT does end at once. Only the main
    thread can; elsewhere the list stays empty."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
