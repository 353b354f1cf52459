"""The two limits of a machine, measured in the same run: multiply-adds per second, and bytes per second.

The peak is the rate of a loop of independent fused multiply-adds in registers, compiled for this processor or
GPU; without a compiler, the rate of a large matrix product, some 75 to 90 % of it.
"""

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from gpubp.engines import build, nvrtc
from gpubp.engines import device as driver
from gpubp.errors import EngineError
from gpubp.system import gpus

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product replaces the peak
COPIED = 512 << 20  # bytes; more than the last-level cache of most processors
SECONDS = 1.0  # of measuring, for each limit

CPU_CHAINS, CPU_STEPS = 12, 4_000_000  # a multiply-add takes 4 or 5 cycles and two may begin in each; some 10 ms

CPU_LOOP = f"""
#define REAL float
#include "simd.h"
extern "C" __attribute__((visibility("default"))) float run() {{
  typedef vec<float, LANES> v;
  v sums[{CPU_CHAINS}], factor = v{{}} + 0.999f, term = v{{}} + 0.001f, all = v{{}};
  for (v& sum : sums) sum = v{{}} + 1.0f;
  for (int step = 0; step < {CPU_STEPS}; step++)
    UNROLL for (v& sum : sums) sum = fma_(sum, factor, term);
  for (v& sum : sums) all += sum;
  return all[0];
}}
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
    try:
        found = fma_peak(threads) if device == "cpu" else gpu_peak(torch.device(device))
    except EngineError:
        return matmul_peak(device), "a large matrix product"
    return found, "a loop of multiply-adds"


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


def fma_peak(threads: int) -> float:
    """FLOP/s of CPU_LOOP on `threads` threads. Raises EngineError where it does not compile."""
    lanes = build.vector_bytes() // 4
    run = build.library(f"#define LANES {lanes}\n{CPU_LOOP}").run
    with ThreadPoolExecutor(threads) as pool:
        seconds = _fastest(lambda: [*pool.map(lambda _: run(), range(threads))], "cpu")
    return 2.0 * CPU_CHAINS * lanes * CPU_STEPS * threads / seconds


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
