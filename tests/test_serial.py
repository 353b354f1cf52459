"""Small operations are computed by the thread that asks."""

import threading
from collections.abc import Iterator

import pytest
import torch

import gpubp
from gpubp import stopping
from gpubp.serial import one_thread


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_one_thread_is_the_callers_alone_and_ends() -> None:
    seen = []
    with one_thread():
        assert torch.get_num_threads() == 1
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert seen == [3]
    assert torch.get_num_threads() == 3


def test_a_loop_decides_in_one_thread_and_trains_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    deciding, listening, decide = set(), set(), stopping.decide

    class Listener(gpubp.Reporter):
        def evaluated(self, record: object) -> None:
            listening.add(torch.get_num_threads())

    monkeypatch.setattr(stopping, "decide", lambda *given: (deciding.add(torch.get_num_threads()), decide(*given))[1])
    networks = gpubp.Population.create(gpubp.NetworkSpec((2, 2)), 3)
    data = gpubp.Dataset(torch.rand(5, 2), torch.rand(5, 2))
    gpubp.train(networks, data, gpubp.TrainConfig(steps=2), reporters=[Listener()])
    assert (deciding, listening) == ({1}, {3})
