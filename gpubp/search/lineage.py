"""Lineage: which network copied which, in RUN/lineage.jsonl, a line for each population's exchange."""

from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa

from ..checkpoints.history import Records
from ..errors import CheckpointError

FILE = "lineage.jsonl"
_WHEN = "before", "after"


class Copy(NamedTuple):
    """After a round the network `target` became a copy of `source`, with these hyper-parameters instead of its own."""

    round: int
    source: int
    target: int
    before: dict[str, float]
    after: dict[str, float]


class Lineage(Records):
    """Records of a round: the networks that were overwritten and their sources, both as rows of the results, and, for
    each hyper-parameter by name, the values before and after."""

    name = FILE

    @staticmethod
    def sound(record: Any) -> bool:
        """Whether table() can show `record`."""
        size = len(record["network"])
        lists = [
            record["network"],
            record["source"],
            *(each[when] for each in record["hyper"].values() for when in each),
        ]
        whole = all(type(each) is int for each in (record["round"], *record["network"], *record["source"]))
        numbers = all(type(value) in (int, float) for each in lists for value in each)
        both = all(set(each) == {"before", "after"} for each in record["hyper"].values())
        return whole and numbers and both and all(len(each) == size for each in lists)

    @classmethod
    def restored(cls, run_dir: Path, saved: Any) -> tuple[Self, list[str]]:
        """load(), or, if the file is damaged, an empty one and a note for the user: no network depends on it."""
        try:
            return cls.load(run_dir, saved), []
        except CheckpointError as error:
            return cls(), [f"{error}; the lineage restarts; the networks are not affected"]

    def copies(self, network: int) -> list[Copy]:
        """The copies that overwrote a network, in the order of their rounds."""
        found = []
        for record in self:
            if network in record["network"]:
                at = record["network"].index(network)
                values = ({name: each[when][at] for name, each in record["hyper"].items()} for when in _WHEN)
                found.append(Copy(record["round"], record["source"][at], network, *values))
        return found

    def ancestors(self, network: int) -> list[Copy]:
        """The copies that lead to a network as it is now, from its first ancestor on."""
        found: list[Copy] = []
        while earlier := [each for each in self.copies(network) if not found or each.round < found[0].round]:
            found.insert(0, earlier[-1])
            network = earlier[-1].source
        return found

    def first(self, network: int) -> dict[str, float]:
        """The initial values of a network's hyper-parameters that have changed since; empty if none has."""
        return next((each.before for each in self.copies(network)), {})

    def table(self) -> pa.Table:
        """A row per copy: round, network, source, and per hyper-parameter `lr_before` and `lr`, empty where a
        population does not have it."""
        names = list(dict.fromkeys(name for record in self for name in record["hyper"]))
        columns: dict[str, list[Any]] = {"round": [], "network": [], "source": []}
        columns |= {f"{name}{when}": [] for name in names for when in ("_before", "")}
        for record in self:
            size = len(record["network"])
            columns["round"] += [record["round"]] * size
            columns["network"] += record["network"]
            columns["source"] += record["source"]
            for name in names:
                each = record["hyper"].get(name, dict.fromkeys(("before", "after"), [None] * size))
                columns[f"{name}_before"] += each["before"]
                columns[name] += each["after"]
        whole = {name: pa.array(columns[name], pa.int64()) for name in ("round", "network", "source")}
        numbers = {name: pa.array(values, pa.float64()) for name, values in columns.items() if name not in whole}
        return pa.table(whole | numbers)
