"""Lineage: which network copied which, in RUN/lineage.jsonl, a line per population that exchanged networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..history import Records

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "lineage.jsonl"


class Lineage(Records):
    """Records of a round, with the networks that were overwritten, their sources, both rows of the results, and of each
    hyper-parameter by name the values before and after."""

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
    def restored(cls, run_dir: Path, saved: Any) -> tuple[Lineage, list[str]]:
        """load(), or an empty one, and a note for the user, if the file is damaged: no network depends on it."""
        try:
            return cls.load(run_dir, saved), []
        except CheckpointError as error:
            return cls(), [f"{error}; the lineage restarts; the networks are not affected"]

    def table(self) -> pa.Table:
        """A row per copy: round, network, source, and per hyper-parameter `lr_before` and `lr`, empty where a
        population does not have it."""
        import pyarrow as pa  # `import gpubp` need not wait for it

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
