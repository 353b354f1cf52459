"""Shared by `train` and `resume`: reporters, the end of training, and its printed summary."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import begun
from ..errors import ClusterError, ConfigError, GpubpError, lookup
from ..evaluate import metric_name
from ..line import counted, line, quoted
from ..reporters import Reporter, ends
from ..reporters.console import ConsoleReporter
from ..reporters.mlflow import MLflowReporter
from ..reporters.tensorboard import TensorBoardReporter
from ..reporters.wandb import WandbReporter
from ..results.result import Result
from ..state import Status
from .printing import print_json

SERVICES: dict[str, Callable[[], Reporter]] = {"mlflow": MLflowReporter, "wandb": WandbReporter}
UNSAVED = 3  # exit status if training ended, but not everything could be written


def ended(run: Path | str, training: Callable[[], Result], cluster: str | None = None) -> Result:
    """The result of `training`, even if a signal ended it, which the exit status then shows. For a run in shards that a
    signal or the end of its cluster ends early: how to continue. run: a path, or a URL; cluster: to be named again."""
    try:
        return training()
    except (KeyboardInterrupt, ClusterError) as stopped:
        result: Result | None = getattr(stopped, "result", None)
        if result is not None and result.run_dir is not None and not begun(result.run_dir):  # no shards to continue
            return result
        if isinstance(run, str):
            if result is not None or isinstance(stopped, ClusterError):
                sys.stderr.write(f"{line(run)} has all that is saved; continue with the same command\n")
        elif (run / "checkpoint").exists():
            again = "" if cluster in (None, "local") else f" --cluster {quoted(cluster)}"
            how = f"continue with: gpubp resume {quoted(run)}{again}"
            sys.stderr.write(f"{line(run)} holds its last checkpoint; {how}\n")
        raise


def reporters(settings: Mapping[str, Any], folder: Path) -> list[Reporter]:
    """Progress on standard error, curves for TensorBoard if requested and possible, and the requested services."""
    found: list[Reporter] = [ConsoleReporter()]
    curves = folder / "tensorboard"
    if settings["tensorboard"]:
        try:
            if curves.is_symlink():
                raise ConfigError(f"{curves} is a link, perhaps to the files of another run")
            found.append(TensorBoardReporter(curves))
        except GpubpError as missing:
            sys.stderr.write(f"no curves: {missing}\n")
    asked = settings["report"].split(",") if settings["report"] else []
    return found + [lookup(SERVICES, name.strip(), "--report", ConfigError)() for name in asked]


def report(settings: Mapping[str, Any], result: Result) -> int:
    """Print the outcome of training, and what to do next. -> exit status."""
    folder = result.run_dir or settings["run_dir"]
    if settings["json"]:
        best = result.ranking()[:1]
        metric = result.metric if result.validation_metric is None else result.validation_metric
        loss = result.loss if result.validation_loss is None else result.validation_loss
        alive = result.status != Status.diverged
        losses, metrics = ends(loss[alive]), ends(metric[alive])
        print_json(
            {
                "networks": result.populations.count,
                "steps": max(int(state.step.max()) for state in result.states),
                "seconds": result.seconds,
                "step_seconds": result.step_seconds,
                "network_steps": result.network_steps,
                "network_steps_per_second": result.network_steps / max(result.step_seconds, 1e-9),
                "engine": result.engine,
                "engine_reason": result.engine_reason,
                "device": settings["device"],
                "notes": result.notes,
                "loss": {"best": losses.get("min"), "median": losses.get("median"), "worst": losses.get("max")},
                "metric": {
                    "name": metric_name(result.populations.each[0].spec),
                    "best": metrics.get("max"),
                    "median": metrics.get("median"),
                },
                "best_network": int(best[0]) if len(best) else None,
                "statuses": result.statuses,
                "waiting": result.waiting,
                "run_dir": str(folder),
                "interrupted": result.stopped_by,
                "unsaved": result.unsaved,
                "silenced": result.silenced,
            }
        )
    elif result.unsaved is None:
        left = result.statuses["running"]
        name = quoted(folder)
        wait = f", {result.waiting:,} wait for a slot" if result.waiting else ""
        have = f"{counted(left, 'network')} {'has' if left == 1 else 'have'}"
        todo = f"{have} steps left{wait}; continue: gpubp resume {name}\n" if left or wait else ""
        what = "results.csv, results.parquet, config.yaml, checkpoint"
        look = "look" if result.run_dir else "copy it to this machine to look"
        print(f"{todo}{line(folder)}: {what}; {look}: gpubp inspect {name if result.run_dir else 'COPY'}")
    if result.unsaved is not None:
        sys.stderr.write(f"error: not saved: {line(result.unsaved)}\n")
    if result.interrupted is not None:
        return 128 + result.interrupted
    return 0 if result.unsaved is None and not result.silenced else UNSAVED
