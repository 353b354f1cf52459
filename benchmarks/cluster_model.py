"""A discrete-event model of a run on a cluster: what saturates first as shards become many.

Each shard starts when the driver has handed it out and its machine has the samples, trains, evaluates, and saves
itself; the driver, the board (gpubp/cluster/board.py), the network of the driver's machine and the shared storage
serve one request after the other. What one request costs is measured (benchmarks/cluster.py); sizes, rates of a GPU, of
networks and of storage are assumptions, and arguments. Failures hit shards at random and cost the work since the last
checkpoint.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds of one request, measured: task: to hand out a shard; message: that the board takes and the driver reads;
    record: of an evaluation, per network; join: per network, from its shard's last report to the run's files; tidy: to
    delete what a shard leaves. bytes: state, of a checkpoint per network; told, of a message about an evaluation per
    network; design: of a network's settings."""

    task: float
    message: float
    record: float
    join: float
    tidy: float
    state: float
    told: float
    design: float
    light: float  # bytes of a state without its rows, per network
    start: float  # of a worker, until it trains


@dataclass(frozen=True)
class Cluster:
    """Assumptions. networks: per shard; hours: that a shard trains; evaluations: of the run; samples: bytes of all;
    minutes: between checkpoints; lost: shards that a day loses, a share of all. Bytes per second of a machine's network
    and of the storage, all together."""

    shards: int
    networks: int = 10_000
    hours: float = 1.0
    evaluations: int = 100
    samples: float = 1e9
    minutes: float = 5.0
    lost: float = 0.02
    network: float = 1.25e9
    storage: float = 10e9
    seed: int = 0


class Server:
    """Serves requests one after the other."""

    def __init__(self) -> None:
        self.free, self.busy = 0.0, 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When a request that comes `now` is done."""
        self.free = max(self.free, now) + seconds
        self.busy += seconds
        return self.free


@dataclass
class Outcome:
    """seconds: of the whole run; ideal: of training alone; busy: the share of the time of all shards in which
    each server works; joining: seconds after that; redone: seconds of training that failures cost, of all shards."""

    seconds: float
    ideal: float
    busy: dict[str, float]
    joining: float
    redone: float

    @property
    def efficiency(self) -> float:
        """Of the shards."""
        return self.ideal / self.seconds


def simulate(costs: Costs, cluster: Cluster) -> Outcome:
    """The run, event by event."""
    servers: dict[str, Server] = defaultdict(Server)
    draw, events = random.Random(cluster.seed), list[tuple[float, int, Iterator[float]]]()
    redone = [0.0]
    arrived: dict[int, set[int]] = defaultdict(set)
    ends: list[float] = []
    for shard in range(cluster.shards):
        begun = servers["driver"].serve(0.0, costs.task)
        begun = servers["network"].serve(begun, cluster.networks * costs.design / cluster.network)
        steps = shard_events(shard, begun, costs, cluster, servers, draw, arrived, redone, ends)
        heapq.heappush(events, (next(steps), shard, steps))
    while events:
        _, shard, steps = heapq.heappop(events)
        if (later := next(steps, None)) is not None:
            heapq.heappush(events, (later, shard, steps))
    last, everybody = max(ends), cluster.shards * cluster.networks
    joining = everybody * (costs.light / cluster.network + costs.join) + cluster.shards * costs.tidy
    busy = {name: each.busy / last for name, each in servers.items()}
    return Outcome(last + joining, 3600 * cluster.hours, busy, joining, redone[0])


def meeting(costs: Costs, cluster: Cluster) -> dict[str, float]:
    """Seconds of a meeting point of a search, in which no shard trains, by what takes them."""
    everybody = cluster.shards * cluster.networks
    return {
        "saving and loading": 2 * everybody * costs.state / cluster.storage,
        "figures to the driver and back": 2 * everybody * costs.light / cluster.network,
        "the decision": everybody * costs.record,
        "handing out": cluster.shards * costs.task,
    }


def shard_events(
    shard: int, now: float, costs: Costs, cluster: Cluster, servers: dict[str, Server], draw: random.Random,
    arrived: dict[int, set[int]], redone: list[float], ends: list[float],
) -> Iterator[float]:  # fmt: skip
    """The life of a shard: when its next event is."""
    hops = max(1, cluster.shards.bit_length())  # Ray's stores pass the samples on from machine to machine
    now += costs.start + hops * cluster.samples / cluster.network
    train, state = 3600 * cluster.hours, cluster.networks * costs.state
    every, look = 60 * cluster.minutes, train / cluster.evaluations
    done, saved, next_save, next_look, evaluation = 0.0, 0.0, every * draw.random(), look, 0
    fails = draw.expovariate(max(cluster.lost, 1e-12) / 86400)
    yield now
    while done < train:
        piece = min(next_save, next_look, train) - done
        if fails < piece:
            redone[0] += done - saved
            now, done = now + fails + costs.start, saved
            yield now
            now = servers["storage"].serve(now, state / cluster.storage)
            next_save, next_look = done + every, (int(done / look) + 1) * look
            evaluation, fails = int(done / look), draw.expovariate(max(cluster.lost, 1e-12) / 86400)
            yield now
            continue
        fails, now, done = fails - piece, now + piece, done + piece
        yield now  # whatever others ask for before is served before
        servers["board"].serve(now, piece * costs.message)  # progress, a message a second
        if done >= next_save:
            now = servers["storage"].serve(now, state / cluster.storage)
            saved, next_save = done, done + every
            yield now
        if done >= next_look - 1e-9:
            evaluation, next_look = evaluation + 1, next_look + look
            told = cluster.networks * costs.told / cluster.network
            servers["network"].serve(servers["board"].serve(now, costs.message), told)
            complete = len(arrived[evaluation]) == cluster.shards
            arrived[evaluation].add(shard)
            if not complete and len(arrived[evaluation]) == cluster.shards:
                servers["driver"].serve(now, costs.record * cluster.networks * cluster.shards)
    ends.append(servers["storage"].serve(now, state / cluster.storage))
