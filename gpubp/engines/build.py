"""C++ text into a loaded library: compiled once by the system's compiler, kept in the user's cache directory.

A kernel's file is named by a hash of its text, the sources of kernel/, the compiler, its flags and the processor, and
by a hash of itself: a file that is not what its name says is never loaded. It is written beside its place and moved
there, so processes that compile the same kernel at once do not meet. Where the cache cannot be written, a kernel is
compiled for this process alone, and news() says so. The environment's CXX names a compiler, GPUBP_CACHE a directory.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import EngineError

T = TypeVar("T")
SOURCES = Path(__file__).parent.parent / "kernel"
ARCH = "native"
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off",
         "-w", "-pthread")  # fmt: skip
COMPILERS = ("g++", "clang++", "c++")
PATIENCE = 600  # seconds that a compiler may take; a kernel of many layers takes it some
STALE = 3600  # seconds after which a file that is still being written belongs to a process that is gone

# What the compiler makes of this processor: the bytes of a vector register that it multiplies and adds in one go.
PROBE = """
extern "C" __attribute__((visibility("default"))) int vector_bytes() {
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512BW__)
  return 64;
#elif defined(__AVX2__) && defined(__FMA__)
  return 32;
#elif defined(__aarch64__)
  return 16;
#else
  return 0;
#endif
}
"""


def compiler() -> list[str]:
    """The compiler's command. Raises EngineError where there is none."""
    try:
        given = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise EngineError(f'engine "cpu": CXX is {os.environ["CXX"]!r}, which is no command: {error}') from None
    for command in [given] if given else [[name] for name in COMPILERS]:
        found = shutil.which(command[0])
        if found:
            return [found, *command[1:]]
    wanted = f"CXX names {given[0]!r}, which is not there" if given else f"none of {', '.join(COMPILERS)} is installed"
    raise EngineError(f'engine "cpu" needs a C++ compiler: {wanted}; engine "eager" needs none')


@functools.cache
def version(command: tuple[str, ...]) -> str:
    """What a compiler says about itself."""
    try:
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", check=True,
                                timeout=60)  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f'engine "cpu": the C++ compiler {command[0]} does not run: {error}') from None
    return result.stdout


@functools.cache
def processor() -> str:
    """What distinguishes this processor's instructions from another's."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), *sorted(set(flags))])


def cache() -> Path | None:
    """Where kernels are kept; None where there is no home directory."""
    given = os.environ.get("GPUBP_CACHE")
    try:
        if given:
            return Path(given).expanduser().absolute()
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "gpubp"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "gpubp"
    except RuntimeError:
        return None


@functools.cache
def sources() -> str:
    """The text of kernel/."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.h")))


def kept(key: str, folder: Path | None, suffix: str, load: Callable[[Path], T]) -> T | None:
    """What `load` makes of the cache's file, if it is there, is what its name says and can be loaded."""
    try:
        for path in sorted(folder.glob(f"{key}-*{suffix}")) if folder else []:
            if path.name == f"{key}-{_digest(path)}{suffix}":
                return load(path)
    except OSError:  # then it is made
        pass
    return None


def keep(made: Path, key: str, folder: Path | None, load: Callable[[Path], T]) -> T | None:
    """`made` moved into the cache and loaded from there; None where it cannot be kept: this process alone has it."""
    if folder is None:
        UNKEPT.setdefault(None, "there is no home directory to keep them in")
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(handle)
        try:
            shutil.copyfile(made, name)
            path = folder / f"{key}-{_digest(made)}{made.suffix}"
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        return load(path)
    except OSError as error:
        UNKEPT.setdefault(folder, f"they cannot be kept in {folder}: {error.strerror or error}")
        return None


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left of files."""
    for path in folder.glob("*.part"):
        with suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


UNKEPT: dict[Path | None, str] = {}  # caches that did not keep a kernel, and why; "" once it was told


def news() -> list[str]:
    """What a person should know, and was not told: once for every cache that kernels cannot be kept in."""
    told = [why for why in UNKEPT.values() if why]
    UNKEPT.update(dict.fromkeys(UNKEPT, ""))
    return [
        f"every process compiles its kernels anew: {why}; the environment's GPUBP_CACHE may name another directory"
        for why in told
    ]


def library(text: str) -> ctypes.CDLL:
    """`text`, which may include the sources of kernel/, compiled and loaded. Raises EngineError where it cannot be."""
    command = compiler()
    flags = [*FLAGS, f"-march={ARCH}"]
    if platform.machine() == "arm64" and ARCH == "native":
        flags[-1] = "-mcpu=native"
    identity = (text, sources(), version(tuple(command)), *command, *flags, processor())
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]
    return _library(key, text, tuple(command), tuple(flags), cache())


@functools.cache
def _library(key: str, text: str, command: tuple[str, ...], flags: tuple[str, ...], folder: Path | None) -> ctypes.CDLL:
    found = kept(key, folder, ".so", _load)
    if found:
        return found
    try:
        with tempfile.TemporaryDirectory(prefix="gpubp-", ignore_cleanup_errors=True) as scratch:
            made = _compile(text, [*command, *flags], Path(scratch))
            return keep(made, key, folder, _load) or _load(made)
    except OSError as error:
        raise EngineError(
            f'engine "cpu" cannot compile and load its kernel: {error}; the environment\'s TMPDIR may name a directory '
            f'for temporary files; engine "eager" needs none'
        ) from None


def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def _compile(text: str, command: list[str], folder: Path) -> Path:
    source, made = folder / "kernel.cpp", folder / "kernel.so"
    source.write_text(text, encoding="utf-8")
    try:
        process = subprocess.Popen(
            [*command, f"-I{SOURCES}", str(source), "-o", str(made)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True,  # Ctrl-C ends a run after its call, not the compiler in it
        )  # fmt: skip
        with process:
            try:
                _, said = process.communicate(timeout=PATIENCE)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # and what it began
                raise
    except subprocess.TimeoutExpired:
        raise EngineError(
            f'engine "cpu": {command[0]} has not compiled the kernel in {PATIENCE} s; engine "eager" needs no compiler'
        ) from None
    except OSError as error:
        raise EngineError(f'engine "cpu": the C++ compiler {command[0]} does not run: {error}') from None
    if process.returncode:
        raise EngineError(
            f'engine "cpu": {command[0]} cannot compile the kernel (exit status {process.returncode}); engine "eager" '
            f"needs no compiler. It says:\n{said.strip()[-2000:]}"
        )
    return made


def vector_bytes() -> int:
    """Bytes of a vector register of this processor. Raises EngineError where the compiler fails, or where the processor
    has no fused multiply-add."""
    return _vector_bytes(ARCH, os.environ.get("CXX"), os.environ.get("PATH"))


@functools.cache
def _vector_bytes(*machine: str | None) -> int:
    found = int(library(PROBE).vector_bytes())
    if not found:
        raise EngineError(
            f'engine "cpu" needs a processor with fused multiply-add in vectors (AVX2 with FMA, or arm64), and this '
            f'{platform.machine()} has none; engine "eager" needs none'
        )
    return found
