"""Session: a connection to Ray, and what it lends. Only this file imports Ray, when needed."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, NamedTuple

from ..errors import ConfigError, DeviceError
from ..line import line
from ..runs.run import Sets
from ..runs.signals import ENDING
from ..system import arrays

LEAST = 1 << 27  # bytes of the object store of a Ray started here
PATIENCE = 5.0  # seconds until an address must answer
TOKEN = (
    "; a cluster of Ray 2.60 wants its token: RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token, the file "
    "RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"
)


class Room(NamedTuple):
    """shards: how many; threads: of each shard; options: of a task that trains one."""

    shards: int
    threads: int
    options: dict[str, Any]

    def __str__(self) -> str:
        each = "a GPU" if "num_gpus" in self.options else f"{self.threads} CPU{'s' * (self.threads > 1)}"
        return f"{self.shards} shard{'s' * (self.shards > 1)}, {each} for each"


@contextmanager
def session(address: str, sets: Sets) -> Iterator[tuple[Any, list[str]]]:
    """The module ray, connected to the cluster at `address`; with "auto", to that of RAY_ADDRESS or of this machine, or
    else to a Ray started by this process, which ends with it. -> also notes for the user. Raises ConfigError."""
    try:
        import ray
    except ImportError:
        raise ConfigError("cluster: Ray is not installed: pip install 'gpubp[cluster]'") from None
    if ray.is_initialized():
        yield ray, ["cluster: the Ray that this process is connected to"]
        return
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        with _exchanged(ray._private.worker, {"_worker_logs_enabled": False}):  # its logs go to standard output
            try:
                yield ray, _connected(ray, address, sets)
            finally:
                ray.shutdown()
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:  # Ray's own
                signal.signal(number, handler)


def _connected(ray: Any, address: str, sets: Sets) -> list[str]:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    where = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    advice = ""
    try:
        if where != "local":
            if where != "auto":
                socket.create_connection(_place(where), PATIENCE).close()  # Ray itself waits for a minute
            advice = TOKEN
            ray.init(where, **quiet)
            return [f"cluster: Ray at {ray.get_runtime_context().gcs_address}"]
    except (OSError, ValueError, RuntimeError, OverflowError, ray.exceptions.RayError) as error:
        if where != "auto" or not isinstance(error, ConnectionError) or _answers(error):
            allowed = "auto, local, or an address such as 10.0.0.1:6379, expected"
            raise ConfigError(f"cluster {where!r}: {allowed}: {line(error)}{advice}") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    store = LEAST + 2 * sum(each.nbytes(each.networks or 1) for each in sets.each)
    with _apart(ray._private.services):
        ray.init("local", include_dashboard=False, object_store_memory=store, _node_ip_address="127.0.0.1", **quiet)
    return ["cluster: a Ray of this machine alone was started, and ends with the run"]


def _answers(error: ConnectionError) -> bool:
    """Whether a cluster answers at the address that ends Ray's error, although it refuses this process: it requires
    another token. If no Ray runs there, or it has crashed, nothing listens."""
    with suppress(OSError, ValueError, OverflowError):
        socket.create_connection(_place(str(error).rpartition(" ")[2]), PATIENCE).close()
        return True
    return False


def _apart(services: Any) -> AbstractContextManager[None]:
    """Processes of Ray started inside get their own sessions, so that a signal to this process's group, as from
    `timeout`, ends no worker before it has saved; and they listen only on this machine."""
    popen: Any = getattr(services, "ConsolePopen", None)
    started = {"ConsolePopen": lambda *given, **more: popen(*given, **more, start_new_session=True)}
    return _exchanged(services, {**started, "resolve_ip_for_localhost": lambda host: host})


def _place(address: str) -> tuple[str, int]:
    """Host and port of an address. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise ValueError("that of the head itself is needed, without a protocol such as Ray Client's")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{port!r} is no port, 1 to 65535")
    return host.strip("[]"), int(port)


@contextmanager
def _exchanged(module: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Inside, names of a module of Ray have these values, if it has the names (2.60 does); Ray has no such settings."""
    before = {name: vars(module)[name] for name in values if name in vars(module)}
    try:
        vars(module).update({name: values[name] for name in before})
        yield
    finally:
        vars(module).update(before)


def room(ray: Any, device: str, shards: int | None) -> tuple[str, Room]:
    """The device (for "auto", GPUs if there are any), and what each of `shards` gets: a GPU, or an equal part of the
    CPUs; by default one shard for each GPU or machine. Raises ConfigError, DeviceError."""
    given = None if shards is None else arrays.count("shards", shards)
    lent = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cpus = ([int(each[name]) for each in lent if each.get(name, 0) >= 1] for name in ("GPU", "CPU"))
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device not in ("cpu", "cuda"):
        raise DeviceError(f"device {device!r}: a cluster gives each shard a GPU, cuda, or CPUs, cpu; auto chooses")
    if device == "cuda" and not gpus:
        raise DeviceError("device 'cuda': the cluster has no GPU; use cpu")
    if not cpus:
        raise DeviceError("the cluster has no CPU to train on")
    if device == "cuda":
        return device, Room(given or sum(gpus), 1, {"num_gpus": 1, "num_cpus": 1})
    number = given or len(cpus)
    threads = max(1, min(sum(cpus) // number, *cpus))
    return device, Room(number, threads, {"num_cpus": threads})
