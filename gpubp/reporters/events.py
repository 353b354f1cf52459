"""Event files of TensorBoard, by tensorboard's own protocol buffers, record writer and reader.

Imports tensorboard, which is optional: tensorboard.py imports this file when a reporter is made.
"""

import secrets
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..system import files

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from google.protobuf.message import DecodeError
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.plugins.custom_scalar import metadata as charts_metadata
    from tensorboard.plugins.histogram import metadata as histogram_metadata
    from tensorboard.plugins.hparams import summary_v2 as hparams
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer import record_writer
    from tensorboard.util.tensor_util import make_tensor_proto

NAME = "events.out.tfevents."
BUCKETS = 30  # as in tensorboard itself


class EventFile:
    """A new file in `folder`. Its name is random, so that no other user can plant a link there. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        seconds, rest = divmod(time.time_ns(), 10**9)  # files are read in the order of their names
        self.file = (folder / f"{NAME}{seconds:010d}.{rest:09d}.{secrets.token_hex(8)}").open("xb")
        self.writer = record_writer.RecordWriter(self.file)
        with ExitStack() as opened:
            opened.callback(self.file.close)
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            opened.pop_all()

    def restart(self) -> None:
        """Hide whatever is in earlier files of the folder."""
        self._write(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))

    def add(self, values: Iterable[Any], step: int, when: float | None = None) -> None:
        """Write `values`, of the functions below, as a point at `step`, made at time `when`."""
        wall = time.time() if when is None else when
        self._write(Event(wall_time=wall, step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self.writer.write(event.SerializeToString())
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def last_step(folder: Path) -> int:
    """The last step of the points in the files of `folder`, -1 if there are none. Unreadable files count as missing."""
    last = -1
    for path in sorted(folder.glob(f"{NAME}*")):
        try:
            files.regular(path)
            for event in LegacyEventFileLoader(str(path)).Load():
                if event.HasField("session_log"):
                    last = min(last, event.step - 1)
                elif event.HasField("summary"):
                    last = max(last, event.step)
        except (OSError, DecodeError):
            continue
    return last


def scalar(tag: str, value: float) -> Any:
    """A point of a curve."""
    return Summary.Value(tag=tag, simple_value=value)


def histogram(tag: str, values: Tensor) -> Any:
    """A histogram of `values` (K,), one or more and finite, in buckets of equal width from the least to the largest."""
    numbers = values.double().numpy()
    low, high = float(numbers.min()), float(numbers.max())
    edges, counts = np.array([low, high]), np.array([len(numbers)])
    if low < high:
        place = ((numbers - low) * (BUCKETS / (high - low))).astype(np.int64)  # a fifth of np.histogram's time
        counts = np.bincount(np.minimum(place, BUCKETS - 1), minlength=BUCKETS)
        edges = np.linspace(low, high, BUCKETS + 1)
    buckets = np.stack([edges[:-1], edges[1:], counts], 1)
    about = histogram_metadata.create_summary_metadata(display_name=None, description=None)
    return Summary.Value(tag=tag, metadata=about, tensor=make_tensor_proto(buckets, dtype=np.float64))


def text(tag: str, markdown: str) -> Any:
    """A text."""
    return text_pb(tag, markdown).value[0]


def charts(bands: Mapping[str, tuple[str, str, str]], several: Mapping[str, list[str]]) -> Any:
    """The layout of Custom Scalars. bands: the tags of value, lower and upper edge; several: curves of one chart."""
    found = [
        layout_pb2.Chart(
            title=title, margin=layout_pb2.MarginChartContent(series=[{"value": each, "lower": low, "upper": high}])
        )
        for title, (each, low, high) in bands.items()
    ]
    found += [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        for title, tags in several.items()
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="the population", chart=found)])
    return Summary.Value(
        tag=charts_metadata.CONFIG_SUMMARY_TAG,
        metadata=charts_metadata.create_summary_metadata(),
        tensor=make_tensor_proto(layout.SerializeToString(), dtype=np.object_),
    )


def trial(settings: Mapping[str, Any], name: str) -> Any:
    """The hyper-parameters of a network: a row under HParams, beside the curves of its folder."""
    return hparams.hparams_pb(dict(settings), trial_id=name).value[0]
