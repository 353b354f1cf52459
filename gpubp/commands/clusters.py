"""--cluster: train shards of the networks on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..line import line, quoted
from ..system.flags import COUNT, TEXT
from .parser import Parser

if TYPE_CHECKING:
    from ..results.result import Result


def flags(flags: Parser) -> None:
    """The flags of `train` for clusters."""
    add = flags.flag
    add("--cluster", TEXT, "auto, local, or the address of a Ray cluster: train shards of the networks on its machines")
    add("--shards", COUNT, "with --cluster: how many; by default one for each GPU, or for each machine without any")
    flags.typed["cluster"] = chosen


def chosen(path: Path, stored: Any, typed: str | None) -> str | None:
    """The cluster that was typed, or `stored` in a file. Raises ConfigError if only a file names it: whoever controls a
    cluster can run programs here."""
    if typed is None and stored not in (None, "local"):
        why = "a file alone does not choose one, as it could run programs here"
        raise ConfigError(f"{line(path)}: cluster {line(stored)!r}: {why}; if you trust it: --cluster {quoted(stored)}")
    return stored if typed is None else typed


def check(settings: dict[str, Any]) -> None:
    """Refuse flags that exclude each other."""
    url = "://" in (settings["run_dir"] or "")
    if settings["cluster"] is None and (url or settings["shards"] is not None):
        flag = f"--run-dir {settings['run_dir']}" if url else f"--shards {settings['shards']}"
        raise ConfigError(f"{flag}: only with --cluster")
    if settings["cluster"] is not None and settings["slots"] is not None:
        raise ConfigError(f"--slots {settings['slots']}: not with --cluster, where more --shards wait for their turn")


def train_many(settings: dict[str, Any]) -> Callable[..., Result]:
    """The function that trains a design."""
    from .. import cluster
    from ..runs import training

    if settings["cluster"] is None:
        return partial(training.train_many, slots=settings["slots"])
    return partial(cluster.train_many, cluster=settings["cluster"], shards=settings["shards"])


def folders(run_dir: str) -> tuple[Path, str | Path]:
    """Where this machine writes curves, and where the run is: the same, unless that is a URL."""
    if "://" in run_dir:
        return Path("runs", run_dir.rstrip("/").rpartition("/")[2]), run_dir
    return Path(run_dir), Path(run_dir)
