"""Compiles C++ text with the system's compiler, once, caches the library (cache.py) and loads it.

A kernel's key is a hash of its text, the sources of kernel/, the compiler, its flags and the processor. The compiler's
output goes to a file, which the one-line error names. The environment variable CXX selects a compiler, with flags.
Those for fast arithmetic have no effect: they would change bits, torch's too, by flushing denormals process-wide.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from ..errors import EngineError, reason
from . import cache

SOURCES = Path(__file__).parent.parent / "kernel"
ARCH = "native"
COMPILING: dict[str, Future[ctypes.CDLL]] = {}  # by key: compilations in progress
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COMPILING.clear)  # a child has none of these threads
FLAGS = ("-fno-fast-math", "-fno-unsafe-math-optimizations", "-std=c++17", "-O3", "-fPIC", "-shared",
         "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off", "-w", "-pthread")  # fmt: skip
COMPILERS = ("g++", "clang++", "c++")
VERSION_PATIENCE = 60  # seconds allowed for --version
PATIENCE = 600  # seconds allowed for a compilation; kernels of many layers take long

# Returns the bytes of a vector register with fused multiply-add. Includes the headers of kernels, so that a missing one
# is found before an engine is chosen.
PROBE = """
#include <cstdint>
#include <cstring>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__clang__) && defined(__x86_64__)
#include <immintrin.h>
#endif
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
    """The compiler's command. Raises EngineError if there is none."""
    try:
        given = shlex.split(os.environ.get("CXX", ""))
    except ValueError:
        raise EngineError(
            f'engine "cpu": CXX is {os.environ["CXX"]!r}; a command, quotation marks in pairs, expected'
        ) from None
    for command in [given] if given else [[name] for name in COMPILERS]:
        found = shutil.which(command[0])
        if found:
            return [found, *command[1:]]
    wanted = f"CXX is {given[0]!r}, which is not found" if given else f"none of {', '.join(COMPILERS)} is installed"
    raise EngineError(f'engine "cpu" needs a C++ compiler: {wanted}; engine "eager" needs none')


@functools.cache
def version(command: tuple[str, ...]) -> str:
    """The output of the compiler's --version."""
    status, told, _ = _run([*command, "--version"], VERSION_PATIENCE)
    if status:
        raise EngineError(
            f'engine "cpu": the C++ compiler {command[0]} does not run: --version does not tell its version'
        )
    return told


def _run(command: Sequence[str], patience: float, folder: str | None = None) -> tuple[int, str, str]:
    """Run a compiler for at most `patience` seconds, in English, with temporary files in `folder`. -> exit status,
    standard output, standard error. Raises EngineError."""
    english = {"LC_ALL": "C"} | ({} if folder is None else {"TMPDIR": folder})
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", env=os.environ | english,
            start_new_session=True,  # Ctrl-C ends a run after its call, not the compiler in it
        )  # fmt: skip
        with process:
            try:
                output, errors = process.communicate(timeout=patience)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # and its child processes
                raise
    except subprocess.TimeoutExpired:
        raise EngineError(
            f'engine "cpu": {command[0]} has not ended in {patience:g} s; engine "eager" needs no compiler'
        ) from None
    except OSError as error:
        raise EngineError(f'engine "cpu": the C++ compiler {command[0]} does not run: {error.strerror}') from None
    return process.returncode, output, errors


@functools.cache
def processor() -> str:
    """Text that identifies this processor's instruction set."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), *sorted(set(flags))])


@functools.cache
def sources() -> str:
    """The text of kernel/."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.rglob("*.h")))


def library(text: str, soon: bool = False) -> ctypes.CDLL:
    """`text`, which may include the sources of kernel/, compiled and loaded. soon: with fewer optimisations, which
    takes four fifths of the time. Raises EngineError if it fails."""
    command = compiler()
    flags = [*("-O2" if soon and flag == "-O3" else flag for flag in FLAGS), f"-march={ARCH}"]
    if platform.machine() == "arm64" and ARCH == "native":
        flags[-1] = "-mcpu=native"
    identity = (text, sources(), version(tuple(command)), *command, *flags, processor())
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]
    mine: Future[ctypes.CDLL] = Future()
    if (under_way := COMPILING.setdefault(key, mine)) is mine:  # many threads request a general kernel at once
        try:
            mine.set_result(_library(key, text, tuple(command), tuple(flags), cache.place()))
        except BaseException as error:
            mine.set_exception(error)
        COMPILING.pop(key, None)
    return under_way.result()


@functools.cache
def _library(key: str, text: str, command: tuple[str, ...], flags: tuple[str, ...], folder: Path | None) -> ctypes.CDLL:
    found = cache.kept(key, folder, ".so", _load)
    if found:
        return found
    try:
        with cache.scratch() as scratch:
            made = _compile(text, [*command, *flags], scratch, folder)
            return cache.keep(made.read_bytes(), key, folder, ".so", _load) or _load(made)
    except OSError as error:
        why = reason(error, "the compiled file cannot be loaded from where it is")
        raise EngineError(
            f'engine "cpu" cannot compile and load its kernel: {why}; TMPDIR can name another directory for temporary '
            'files; engine "eager" needs none'
        ) from None


def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def _compile(text: str, command: list[str], folder: Path, logs: Path | None) -> Path:
    """Compile `text` to a library in `folder`; the output of a failed compiler goes to `logs`."""
    source, made = folder / "kernel.cpp", folder / "kernel.so"
    source.write_text(text, encoding="utf-8")
    status, _, output = _run([*command, f"-I{SOURCES}", str(source), "-o", str(made)], PATIENCE, str(folder))
    if status or not made.exists():
        raise EngineError(
            f'engine "cpu": {command[0]} cannot compile the kernel (exit status {status}; '
            f'{summary(output, logs)}); engine "eager" needs no compiler'
        )
    return made


def summary(output: str, logs: Path | None) -> str:
    """The most telling line of a compiler's output, and the file with all of it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if not lines:
        return "no output"
    telling = next((line for line in lines if "error" in line), lines[0])
    return f"{telling[:300]}; full output: {cache.log(output, logs)}"


def vector_bytes() -> int:
    """Bytes of a vector register of this processor. Raises EngineError if the compiler fails or the processor
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
