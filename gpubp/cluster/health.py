"""Health: whether Ray still runs on this machine, how often workers died, and whether shards wait for resources."""

import math
import socket
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from ..errors import ClusterError
from ..line import line

DEATHS = 5  # of a shard's workers in a row, without a new checkpoint, before the shard is given up
WAIT = 10.0  # seconds until shards without a worker are reported
TICK = 0.25  # seconds between two looks
EVERY = 5.0  # seconds between two connections to the head
AWAY = 30.0  # seconds without one, after which the head counts as lost: Ray would end the process


class Lifeline:
    """Detects, by a connection to Ray's process on this machine, that it has ended, and, by new connections to the head
    of the cluster, that it has been away too long: Ray would then end this whole process without a message."""

    def __init__(self, ray: Any) -> None:
        self.line, self.heard, self.asked = socket.socket(socket.AF_UNIX), math.inf, 0.0
        with suppress(AttributeError, OSError, TypeError):  # Ray has no public way to find these (tried with 2.60)
            self.line.connect(ray._private.worker._global_node.raylet_socket_name)
            host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
            self.head, self.heard = (host.strip("[]"), int(port)), time.monotonic()

    def check(self) -> None:
        """Raises ClusterError if Ray has ended."""
        if self.heard == math.inf:
            return
        with suppress(BlockingIOError):
            if not self.line.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK):
                raise ClusterError("the Ray of this machine has ended; shards have what they saved last")
        if (now := time.monotonic()) - self.asked > EVERY:
            self.asked = now
            with suppress(OSError):
                socket.create_connection(self.head, TICK).close()
                self.heard = now
            if now - self.heard > AWAY:
                raise ClusterError(
                    f"the head of the cluster does not answer for {AWAY:.0f} s; shards have what they saved"
                )

    def wait(self, ray: Any, task: Any, waiting: Callable[[], object] = lambda: None) -> Any:
        """What a task returns. waiting: called if that takes long. Raises ClusterError, or what the task raises."""
        begun = time.monotonic()
        while not ray.wait([task], timeout=TICK)[0]:
            self.check()
            if time.monotonic() - begun > WAIT:
                waiting()
                begun = math.inf
        return ray.get(task)

    def close(self) -> None:
        """End the connection."""
        self.line.close()


class Tries:
    """The tries of each of `count` shards in one phase. tell: the user; heard: whether workers report their start."""

    def __init__(self, count: int, tell: Callable[[str], object], heard: bool) -> None:
        self.tell, self.heard, self.since = tell, heard, time.monotonic()
        self.deaths, self.reached, self.begun = [0] * count, [-1] * count, set[int]()

    def begin(self, at: int, done: int, step: int) -> None:
        """A worker has begun with the shard `at`, from a checkpoint after `done` network-steps, at `step`."""
        self.begun.add(at)
        if self.deaths[at]:
            self.tell(f"shard {at}: its worker died; tried again from step {step:,}")
        if done > self.reached[at]:
            self.deaths[at], self.reached[at] = 0, done

    def died(self, at: int, error: Exception) -> ClusterError | None:
        """A worker has died. -> the error if the shard is given up."""
        self.deaths[at] += 1
        if self.deaths[at] == DEATHS:
            return ClusterError(f"shard {at}: its worker died {DEATHS} times since its last checkpoint: {line(error)}")
        if at not in self.begun:  # otherwise reported when the next one begins
            self.tell(f"shard {at}: its worker died before it began; tried again")
        self.begun.discard(at)
        self.since = time.monotonic()
        return None

    def look(self, left: Collection[int], free: Callable[[], str]) -> None:
        """Say once if none of the shards `left` has had a worker for a while, for lack of resources. free: what the
        cluster has free, or nothing if that suffices for one."""
        if self.heard and not self.begun & {*left} and time.monotonic() - self.since > WAIT:
            has = free()
            self.since = math.inf if has else time.monotonic()
            if has:
                self.tell(f"no shard has a worker after {WAIT:.0f} s: {has}")


def free(ray: Any, options: Mapping[str, Any]) -> str:
    """What is free of the resources that a task with these `options` needs; nothing if a machine has enough for one."""
    needed = {"GPU": options.get("num_gpus", 0), "CPU": options["num_cpus"]}
    with suppress(AttributeError):  # Ray has no public list of a machine's free resources (tried with 2.60)
        machines = ray._private.state.available_resources_per_node().values()
        if any(all(each.get(name, 0) >= count for name, count in needed.items()) for each in machines):
            return ""
    left, whole = ray.available_resources(), ray.cluster_resources()
    return ", ".join(
        f"{left.get(name, 0):g} of {whole.get(name, 0):g} {name}s free, {count} needed"
        for name, count in needed.items()
        if count
    )
