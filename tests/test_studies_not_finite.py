"""Studies, and figures of a report, by columns that hold NaN or infinity."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import studies
from gpubp.pages import figures

from .test_studies import results


@pytest.mark.parametrize("count", [3, 40])
def test_nan_is_no_value_and_infinity_a_group(count: int) -> None:
    r2, patience = np.linspace(0, 1, count), np.arange(1.0, count + 1)
    r2[:2], patience[-1] = np.nan, np.inf
    study = studies.Study(results(loss=np.arange(count), r2=r2, patience=patience))
    without = study.by("r2")[-1]
    assert (without.values, without.networks, without.mean) == ({"r2": None}, 2, 0.5)
    last = study.by("patience")[-1]
    assert (last.values, last.networks) == ({"patience": np.inf}, 1)
    assert sum(group.networks for group in study.by("patience")) == count


def test_a_report_names_an_infinite_setting_inf_and_none_where_there_is_no_value() -> None:
    patience = [3.0, np.inf, np.nan, 5.0, 3.0, np.inf]
    study = studies.Study(results(loss=np.arange(6.0), patience=patience))
    (found,) = figures.effects(study)
    assert [each["values"] for each in found["groups"]] == [[3.0], [5.0], ["inf"], [None]]
    assert figures.points(study, ["patience"])["columns"]["patience"] == [3.0, "inf", None, 5.0, 3.0, "inf"]
