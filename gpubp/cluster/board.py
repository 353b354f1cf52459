"""Board: how messages of shards reach the driver, each once and in the order of sending, even if the process between
them dies.

A worker keeps its messages until the driver has them, sends them again if another board answers, and leaves the rest
with its report. Messages lost with a worker are sent again by the next one, from the last checkpoint.
"""

from __future__ import annotations

import pickle
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from .messages import Looked, Message

Sender = tuple[int, str]  # the number of a shard, and the name of one of its tasks
Letter = tuple[Sender, int, bytes]  # the sender, its number among the sender's, from 1, and the message


def board() -> type:
    """The class of the actor that keeps the shards' messages, in order, until the driver takes them. It is defined
    here, so that Ray sends the class itself, and the actor's process need not import this package and torch."""

    class Board:
        def __init__(self) -> None:
            self.name = secrets.token_hex(8)
            self.news: list[Letter] = []
            self.passed: dict[Sender, int] = {}

        def tell(self, letter: Letter) -> tuple[str, int]:  # which board this is; the last letter that the driver has
            self.news.append(letter)
            return self.name, self.passed.get(letter[0], 0)

        def taken(self, passed: dict[Sender, int]) -> list[Letter]:
            self.passed.update(passed)
            news, self.news = self.news, []
            return news

    return Board


class Outbox:
    """A worker's side. board: the actor; number: of the shard."""

    def __init__(self, board: Any, number: int) -> None:
        self.board, self.sender, self.name, self.count = board, (number, secrets.token_hex(8)), "", 0
        self.held = deque[Letter]()  # messages that the driver may not have
        self.asked = deque[Future[tuple[str, int]]]()

    def tell(self, message: Message) -> None:
        """Tell the driver. For an evaluation, wait until the board has it: a later checkpoint would not repeat it."""
        self.count += 1
        self.held.append((self.sender, self.count, pickle.dumps(message)))
        self.send(self.held[-1])
        self.answers(wait=isinstance(message, Looked))

    def rest(self) -> list[Letter]:
        """The messages that the driver may not have, once the board has all."""
        self.answers(wait=True)
        return [*self.held]

    def send(self, letter: Letter) -> None:
        """Hand a letter to the board, without ray.get(), which would raise in a cancelled task before the shard has
        saved itself."""
        self.asked.append(self.board.tell.remote(letter).future())

    def answers(self, wait: bool) -> None:
        """Process the board's answers. wait: for all of them."""
        while self.asked and (wait or self.asked[0].done()):
            name, passed = self.asked.popleft().result()
            while self.held and self.held[0][1] <= passed:
                self.held.popleft()
            if name != self.name:
                for each in self.held if self.name else ():
                    self.send(each)
                self.name = name


class Inbox:
    """The driver's side. have: by sender, the last message that is here with all before it; passed: the same, if new
    since receipts(); early: messages whose predecessors are not here yet."""

    def __init__(self) -> None:
        self.passed, self.have = dict[Sender, int](), dict[Sender, int]()
        self.early: dict[tuple[Sender, int], bytes] = {}

    def receipts(self) -> dict[Sender, int]:
        """What is new in `passed`."""
        passed, self.passed = self.passed, {}
        return passed

    def sorted(self, letters: Iterable[Letter]) -> Iterator[tuple[int, Message]]:
        """The messages, of these and of early ones, that are next in order: the shard's number, and the message."""
        for sender, number, content in letters:
            have = self.have.get(sender, 0)
            if number > have:
                self.early[sender, number] = content
            while (sender, have + 1) in self.early:
                have += 1
                yield sender[0], pickle.loads(self.early.pop((sender, have)))
            self.have[sender] = self.passed[sender] = have
