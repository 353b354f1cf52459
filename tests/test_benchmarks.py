"""The benchmarks compare like with like: in float64 every contender trains to the same weights."""

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

from benchmarks.peers import PEERS, parity
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_contender_trains_to_the_same_weights(workload, optimizer):
    parity(WORKLOADS[workload], optimizer, list(PEERS))


@pytest.mark.parametrize(("workload", "flop"), [("W1", 64), ("W3", 3.88e6), ("W4", 26.4e6), ("W5", 0.652e6)])
def test_model_flop_are_those_of_the_formula(workload, flop):
    assert WORKLOADS[workload].flop == pytest.approx(flop, rel=2e-3)
