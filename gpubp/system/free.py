"""available(): free memory; too_little(): whether it is less than needed; fits(): whether a file unpacks to less;
columns(): whether it has few enough; held(): the memory of this process; size(): bytes as text."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from ..errors import DataError
from . import gpus

HOST = torch.device("cpu")
LARGE, TIMES = 1 << 28, 10_000  # bytes that any file may unpack to; a larger one, this many per byte
GROUPS = Path("/sys/fs/cgroup")
MEMBER = Path("/proc/self/cgroup")
# Of a control group, by its controller's name: the folder, the limit, the memory in use, and the part that is files.
CONTROLS = {
    "": (".", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
SMALL = 1 << 20  # bytes assumed to fit: asking the system would take as long as reading them
UNLIMITED = 1 << 60  # bytes; kernels report this much or more where there is no limit
COLUMNS, COLUMN = 100_000, 10_000  # of a file of samples or of a design; bytes that a column takes


def available(device: torch.device) -> int | None:
    """Free bytes on `device`, for the host at most what this process may still take (ulimit -v, a container); None if
    the system does not tell."""
    if device.type == "cuda":
        return gpus.free(device)
    try:
        lines, left = Path("/proc/meminfo").read_text().splitlines(), addresses()
    except OSError:
        return None
    found = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    if found is None:
        return None
    return max(0, min([found, *([] if left is None else [left]), *_left_in_groups()]))


def addresses() -> int | None:
    """Bytes that `ulimit -v`, which some batch systems set, leaves this process: it counts what libraries reserve, used
    or not. None without such a limit. Raises OSError."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return most - pages * resource.getpagesize()


def too_little(need: int, device: torch.device = HOST) -> int | None:
    """The free bytes on `device` if fewer than `need`; None if `need` bytes fit, or if the system does not tell."""
    room = available(device) if need > SMALL else None
    return room if room is not None and need > room else None


def _left_in_groups() -> Iterator[int]:
    """Bytes that this process's control group and those around it may still take, not counting cached files as used. In
    a container its group is the visible root, whatever its name."""
    with suppress(OSError, ValueError):
        for line in MEMBER.read_text().splitlines():
            _, names, path = line.split(":", 2)
            for name in {*names.split(",")} & {*CONTROLS}:
                folder, limit, used, files = CONTROLS[name]
                root = GROUPS / folder
                inner = root / path.lstrip("/")
                for place in (inner, *inner.parents[: len(inner.parts) - len(root.parts)]):
                    with suppress(OSError, ValueError):  # "max" is not a number
                        if (most := int((place / limit).read_text())) < UNLIMITED:
                            taken, stat = int((place / used).read_text()), (place / "memory.stat").read_text()
                            left = dict(each.split() for each in stat.splitlines()).get(files, 0)
                            yield most - taken + int(left)


def fits(name: str, unpacked: int, packed: int | None = None) -> None:
    """Raise DataError if `unpacked` bytes do not fit in memory, or exceed the file's `packed` bytes by so much that the
    file must have been made to fill memory: compressed zeros unpack to a thousand times their file."""
    if (room := too_little(unpacked)) is not None:
        raise DataError(f"{name} needs {size(unpacked)} when unpacked; {size(room)} are free")
    if packed is not None and unpacked > max(LARGE, TIMES * packed):
        raise DataError(
            f"{name} of {size(packed)} needs {size(unpacked)} when unpacked; at most {TIMES:,} times its size expected"
        )


def columns(name: str, count: int) -> None:
    """Raise DataError for more columns than COLUMNS or memory allow, however small the file."""
    if count > COLUMNS:
        raise DataError(f"{name} has more than {COLUMNS:,} columns, the most that are read")
    fits(f"{name} of {count:,} columns", count * COLUMN)


def held() -> dict[str, int]:
    """Bytes that this process holds: host, its resident memory, if the system tells; gpu, torch's on all GPUs."""
    found = {}
    with suppress(OSError), open("/proc/self/statm", "rb", buffering=0) as file:
        found["host"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if on_gpus := gpus.held():
        found["gpu"] = on_gpus
    return found


def size(count: float) -> str:
    """Bytes as text: 1.5 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
