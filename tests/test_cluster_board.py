"""Messages of shards come to the driver once and in order, whatever becomes of the board between them."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from gpubp.cluster.board import Inbox, Outbox, board
from gpubp.cluster.messages import NONE, Begun, Looked


class Actor:
    """A board that Ray makes again whenever it dies; what is told in between is told the next one."""

    def __init__(self) -> None:
        self.die()
        self.tell = SimpleNamespace(remote=self.told)

    def die(self) -> None:
        self.board: Any = board()()

    def told(self, letter: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(self.board.tell(letter))
        return SimpleNamespace(future=lambda: future)


def looked(number: int) -> Looked:
    return Looked(number, [], [], NONE)


@pytest.mark.parametrize("deaths", [(), (3,), (1, 2, 3), (4, 5), (2, 7, 8), (9,)], ids=str)
def test_messages_come_once_and_in_order_also_if_the_board_dies(deaths: tuple[int, ...]) -> None:
    actor, inbox, heard = Actor(), Inbox(), list[Any]()
    outboxes = [Outbox(actor, number) for number in (0, 1)]

    def hear() -> None:
        heard.extend(inbox.sorted(actor.board.taken(inbox.receipts())))

    for number in range(1, 10):
        for each in outboxes:
            each.tell(looked(number))
        if number in deaths:
            actor.die()
        if number % 3 == 0:
            hear()
    for each in outboxes:
        heard.extend(inbox.sorted(each.rest()))
    for shard in (0, 1):
        assert [told.number for at, told in heard if at == shard] == [*range(1, 10)]


def test_a_worker_keeps_no_more_than_the_driver_may_not_have() -> None:
    actor, inbox = Actor(), Inbox()
    outbox = Outbox(actor, 0)
    for number in range(1, 100):
        outbox.tell(looked(number))
        if number % 10 == 0:
            assert len([*inbox.sorted(actor.board.taken(inbox.receipts()))]) == 10
        assert len(outbox.held) <= 22
    assert inbox.early == {}


def test_the_next_worker_of_a_shard_is_another_sender() -> None:
    actor, inbox = Actor(), Inbox()
    for _ in range(2):
        Outbox(actor, 5).tell(Begun(40, 20))
    assert [*inbox.sorted(actor.board.taken({}))] == [(5, Begun(40, 20))] * 2
