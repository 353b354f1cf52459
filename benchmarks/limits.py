"""The two limits of a machine, measured in the same run: multiply-adds per second, and bytes per second.

The peak is the rate of a loop of independent fused multiply-adds in registers, compiled for this processor or
GPU; without a compiler, the rate of a large matrix product, some 75 to 90 % of it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from gpubp.engines import build, nvrtc
from gpubp.engines import device as driver
from gpubp.errors import EngineError
from gpubp.system import gpus

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product replaces the peak
COPIED = 512 << 20  # bytes; more than the last-level cache of most processors
SECONDS = 1.0  # of measuring, for each limit

LOOP = r"""
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
constexpr int CHAINS = 12;       // a multiply-add takes 4 or 5 cycles and two may begin in each: 8 to 10 in flight
constexpr long STEPS = 4000000;  // some 10 ms

// Names, not an array: an array that inline assembly touches would live in memory.
#define EACH(of) of(s0) of(s1) of(s2) of(s3) of(s4) of(s5) of(s6) of(s7) of(s8) of(s9) of(s10) of(s11)
#define BEGIN(s) lanes s = one;
#define STEP(s) s = s * factor + term;
#define KEEP(s) REGISTER(s);  // neither folded into the next step nor left out
#define ADD(s) all += s;

static void work(float* left) {
  lanes one = lanes{} + 1.0f, factor = lanes{} + 0.999f, term = lanes{} + 0.001f, all = lanes{};
  EACH(BEGIN)
  for (long step = 0; step < STEPS; step++) {
    EACH(STEP)
    EACH(KEEP)
  }
  EACH(ADD)
  *left = all[0];
}

int main(int count, char** words) {
  const int threads = count > 1 ? std::atoi(words[1]) : 1;
  const double patience = count > 2 ? std::atof(words[2]) : 1;
  typedef std::chrono::steady_clock watch;
  const auto begun = watch::now();
  double best = 0;
  std::vector<float> left(threads * 64);
  while (std::chrono::duration<double>(watch::now() - begun).count() < patience) {
    const auto start = watch::now();
    std::vector<std::thread> pool;
    for (int t = 1; t < threads; t++) pool.emplace_back(work, &left[t * 64]);
    work(&left[0]);
    for (auto& each : pool) each.join();
    const double spent = std::chrono::duration<double>(watch::now() - start).count();
    best = std::max(best, 2.0 * CHAINS * LANES * STEPS * threads / spent);
  }
  std::printf("%g\n", best);
}
"""


CHAINS, UNROLLED, TURNS = 8, 16, 4096  # independent multiply-adds; steps of a turn; turns of a call
BLOCK, BLOCKS = 256, 8  # threads of a block, and blocks over those that run at once

GPU_LOOP = f"""
struct Given {{ float* left; float factor, term; }};
extern "C" __global__ void run(Given given) {{
  float sums[{CHAINS}];
  for (int c = 0; c < {CHAINS}; c++) sums[c] = threadIdx.x + c;
#pragma unroll 1
  for (int turn = 0; turn < {TURNS}; turn++) {{
#pragma unroll
    for (int step = 0; step < {UNROLLED}; step++) {{
#pragma unroll
      for (int c = 0; c < {CHAINS}; c++) sums[c] = __fmaf_rn(sums[c], given.factor, given.term);
    }}
  }}
  float all = 0;
  for (int c = 0; c < {CHAINS}; c++) all += sums[c];
  given.left[blockIdx.x * {BLOCK} + threadIdx.x] = all;
}}
"""


class Given(ctypes.Structure):
    """The argument of GPU_LOOP."""

    _fields_ = [("left", ctypes.c_void_p), ("factor", ctypes.c_float), ("term", ctypes.c_float)]


def peak(device: str, threads: int) -> tuple[float, str]:
    """FLOP/s that count as 100 %, float32, and of what."""
    if device != "cpu":
        try:
            return gpu_peak(torch.device(device)), "a loop of multiply-adds"
        except EngineError:
            return matmul_peak(device), "a large matrix product"
    command = compiler()
    if command is None:
        return matmul_peak(device), "a large matrix product"
    return fma_peak(command, threads), "a loop of multiply-adds"


def gpu_peak(device: torch.device) -> float:
    """FLOP/s of GPU_LOOP. Raises EngineError where there is no NVRTC, or the device or its driver is too old for it."""
    code = nvrtc.cubin(GPU_LOOP, driver.limits(device).arch)
    function = driver.load(code, BLOCK, 0, device)
    blocks = BLOCKS * function.blocks
    left = torch.empty(blocks * BLOCK, device=device)
    given = Given(left.data_ptr(), 0.999, 0.001)
    seconds = _fastest(partial(driver.Launch(function, BLOCK, 0, [given], device), blocks), str(device))
    if not bool(((left > 0) & (left < CHAINS * 2)).all()):  # each chain tends to 1, from up to 263
        raise AssertionError("the loop of the peak did not compute what it should")
    return 2.0 * CHAINS * UNROLLED * TURNS * BLOCK * blocks / seconds


def compiler() -> list[str] | None:
    """The words that call the engine's C++ compiler; None where there is none."""
    try:
        return build.compiler()
    except EngineError:
        return None


def fma_peak(command: Sequence[str], threads: int) -> float:
    """FLOP/s of the loop above on `threads` threads; RuntimeError with the compiler's words where it does not build."""
    arm = os.uname().machine in ("aarch64", "arm64")
    keep = 'asm volatile("" : "+w"(x))' if arm else 'asm volatile("" : "+x"(x))'
    if "avx512f" in cpuinfo("flags").split():
        keep = keep.replace("+x", "+v")
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "peak.cpp"), Path(folder, "peak")
        source.write_text(f"#define REGISTER(x) {keep}\n{LOOP}")
        flags = ["-O3", "-mcpu=native" if arm else "-march=native", "-ffp-contract=fast", "-std=c++17", "-pthread"]
        built = subprocess.run([*command, *flags, source, "-o", program], capture_output=True, text=True, check=False)
        if built.returncode:
            raise RuntimeError(f"{command[0]} does not compile the loop of the peak:\n{built.stderr}")
        words = [program, str(threads), str(SECONDS)]
        return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def matmul_peak(device: str) -> float:
    """FLOP/s of a large float32 product."""
    side = SIDE[torch.device(device).type]
    left, right = torch.rand(2, side, side, device=device)
    return 2 * side**3 / _fastest(lambda: left @ right, device)


def copy_rate(device: str) -> float:
    """Bytes/s, read and written, of a large copy."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / _fastest(lambda: target.copy_(source), device)


def wait(device: str) -> None:
    """Wait for the device."""
    gpus.wait(torch.device(device))


def _fastest(call: Callable[[], object], device: str) -> float:
    """Seconds of the fastest call: a limit is the undisturbed machine's."""
    seconds, end = [], time.perf_counter() + SECONDS
    while len(seconds) < 3 or time.perf_counter() < end:
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def cpuinfo(name: str) -> str:
    """A line of Linux's /proc/cpuinfo; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
