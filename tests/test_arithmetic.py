"""The kernels' functions (gpubp/kernel/arithmetic.h) are as accurate as the header says, with the same bits everywhere.

The reference of float is float64 by numpy and torch; that of double is mpmath, and long double where it has 64 bits.
"""

import ctypes
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from gpubp.engines import build as engine_build

from .helpers import had

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "gpubp" / "kernel" / "arithmetic.h"
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-ffp-contract=off", "-DREAL=float", "-DPARTS=1", "-shared", "-fPIC"]
Array = np.ndarray[Any, Any]

# Largest error in ulps of the correct result, of float and of double: the table at the head of the header.
BOUNDS = {
    "exp": (1.91, 0.90), "expm1": (1.64, 1.85), "log": (0.85, 0.90), "log1p": (1.40, 1.45),
    "tanh": (2.54, 2.70), "erf": (1.49, 1.05), "sin": (1.58, 1.65), "cos": (1.58, 1.65),
}  # fmt: skip
FLOAT64: dict[str, Callable[[Array], Array]] = {
    **{name: getattr(np, name) for name in BOUNDS if name != "erf"},
    "erf": lambda x: torch.erf(torch.from_numpy(x)).numpy(),
}
# The others are exact, and are compared with torch's on every pair of SPECIAL.
TORCH: dict[str, Callable[..., torch.Tensor]] = {
    "floor": torch.floor, "abs": torch.abs, "sign": torch.sign, "min": torch.minimum, "max": torch.maximum,
    "gt": torch.gt, "lt": torch.lt, "ge": torch.ge, "le": torch.le, "eq": torch.eq, "ne": torch.ne,
    "at_least": lambda x, low: torch.where(low.isnan(), x, torch.maximum(x, low)),
    "at_most": lambda x, high: torch.where(high.isnan(), x, torch.minimum(x, high)),
    "where": lambda a, b: torch.where(a.bool(), b, a),
    "lerp": lambda a, b: torch.where(a.isfinite(), b, torch.nan),  # all of the way
}  # fmt: skip
UNARY = (*BOUNDS, "floor", "abs", "sign")
BINARY = tuple(name for name in TORCH if name not in UNARY)
DRIVER = """
#include "arithmetic.h"
template <class V> FN V where__(V a, V b) { return where_(a, b, a); }
template <class V> FN V lerp__(V a, V b) { return lerp_(a, b, splat<V>(1)); }
#define UNARY(name, T, n) extern "C" void name##_##T(const T *a, const T *, T *y, long count) { \\
  for (long i = 0; i < count; i += n) store<vec<T, n>>(y + i, name##_(load<vec<T, n>>(a + i))); }
#define BINARY(name, function, T, n) extern "C" void name##_##T(const T *a, const T *b, T *y, long count) { \\
  for (long i = 0; i < count; i += n) \\
    store<vec<T, n>>(y + i, function(load<vec<T, n>>(a + i), load<vec<T, n>>(b + i))); }
""" + "".join(
    [f"UNARY({name}, float, VECTOR) UNARY({name}, double, (VECTOR + 1) / 2)\n" for name in UNARY]
    + [
        f"BINARY({name}, {function}, float, VECTOR) BINARY({name}, {function}, double, (VECTOR + 1) / 2)\n"
        for name in BINARY
        for function in [f"{name}__" if name in ("where", "lerp") else f"{name}_"]
    ]
)
SPECIAL = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 88.8, 100.0, 2.0**22 + 0.5, 2.0**23 - 0.5, 1e9, 1e300, 1e-310,
           5e-324, 1e-45, 1e-40, 2.0**-126, 2.0**-1022, 3.4e38, 1.7e308, np.inf, np.nan]  # fmt: skip


def run(library: ctypes.CDLL, name: str, a: Array, b: Array | None = None) -> Array:
    """name_(a) or name_(a, b) by the library; filled up to a whole number of vectors at an address that suits all."""
    count = -(-len(a) // 16) * 16
    block = np.zeros((3, count), a.dtype)
    block[0, : len(a)] = a
    block[1, : len(a)] = a if b is None else b
    function = getattr(library, f"{name}_{'float' if a.dtype == np.float32 else 'double'}")
    function(*(ctypes.c_void_p(row.ctypes.data) for row in block), ctypes.c_long(count))
    return block[2, : len(a)]


def errors(got: Array, exact: Array) -> Array:
    """|got - exact| in ulps of exact in got's type; infinite where NaN, infinity, zero or its sign are not the same.

    exact is of a wider type. An overflow counts as the power of two after the largest number.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        top = np.ldexp(exact.dtype.type(1), info.maxexp)
        near = np.clip(got.astype(exact.dtype), -top, top)
        exponent = np.clip(np.frexp(exact)[1] - 1, info.minexp, info.maxexp - 1)
        ulps = np.ldexp(np.abs(near - np.clip(exact, -top, top)), info.nmant - exponent)
        wrong = np.isnan(got) != np.isnan(exact)
        wrong |= (np.isinf(exact) | (exact == 0)) & ((got != exact) | (np.signbit(got) != np.signbit(exact)))
        return np.where(wrong, np.inf, np.where(np.isnan(got), 0, ulps)).astype(np.float64)


def worst(library: ctypes.CDLL, name: str, x: Array) -> tuple[float, float]:
    """The largest error of float or double at x, and where."""
    reference = FLOAT64[name]
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64 if x.dtype == np.float32 else np.longdouble))
    found = errors(run(library, name, x), exact)
    return float(found.max()), float(x[found.argmax()])


def patterns(stride: int, start: int = 0, stop: int = 2**32) -> Array:
    return np.arange(start, stop, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def doubles(count: int, seed: int = 0) -> Array:
    """Of every exponent, of moderate size, and SPECIAL with both signs."""
    rng = np.random.default_rng(seed)
    every = rng.integers(0, 2**64, count // 4, dtype=np.uint64).view(np.float64)
    sizes = [10 ** rng.uniform(*powers, count // 4) for powers in [(-17, 3), (-2, 1), (0, 2.86)]]
    moderate, special = np.concatenate(sizes), np.array(SPECIAL)
    return np.concatenate([every, moderate * rng.choice([-1, 1], len(moderate)), special, -special])


def same(a: Array, b: Array) -> bool:
    """The same bits, any NaN as good as another."""
    word = np.uint32 if a.dtype == np.float32 else np.uint64
    return bool(((a.view(word) == b.view(word)) | (np.isnan(a) & np.isnan(b))).all())


def build(folder: Path, lanes: int, machine: str, level: str) -> ctypes.CDLL:
    folder.mkdir()
    (folder / "driver.cc").write_text(DRIVER)
    library = folder / "driver.so"
    names = [f"-march={machine}", f"-DVECTOR={lanes}", f"-I{HEADER.parent}", "-Wall", "-Werror"]
    command = [*had(engine_build.compiler), *FLAGS, *names, level, str(folder / "driver.cc"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def kinds() -> list[tuple[int, str]]:
    """Lanes of float and instruction sets that this machine has."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return [(1, "native"), (4, "native")]
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    wide = {"avx2": (8, "x86-64-v3"), "avx512f": (16, "native")}
    return [(1, "native"), *(kind for flag, kind in wide.items() if flag in flags)]


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], ctypes.CDLL]:
    folder = tmp_path_factory.mktemp("arithmetic")
    levels = dict.fromkeys(kinds(), "-O1") | {max(kinds()): "-O3"}  # which takes long
    return {
        (lanes, machine): build(folder / f"{lanes}-{machine}", lanes, machine, level)
        for (lanes, machine), level in levels.items()
    }


@pytest.fixture(scope="session")
def widest(builds: dict[tuple[int, str], ctypes.CDLL]) -> ctypes.CDLL:
    return builds[max(builds)]


def test_the_header_states_the_bounds_of_this_file() -> None:
    rows = re.findall(r"\b(\w+) +(\d\.\d+) +(\d\.\d+)", HEADER.read_text().split("#pragma once")[0])
    assert {name: (float(a), float(b)) for name, a, b in rows} == BOUNDS


@pytest.mark.parametrize("name", BOUNDS)
def test_float_is_within_its_bound_at_a_million_numbers_of_all_exponents(widest: ctypes.CDLL, name: str) -> None:
    ends = np.array([x for x in SPECIAL if not 0 < x < 1e-46 and not 4e38 < x < np.inf], np.float32)
    error, place = worst(widest, name, np.concatenate([patterns(4241), ends, -ends]))
    assert error <= BOUNDS[name][0], f"{name}({place!r}) is wrong by {error:.3f} ulp"


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_float_is_within_its_bound_at_every_number(widest: ctypes.CDLL, name: str) -> None:
    step = 2**20
    error, place = max(worst(widest, name, patterns(1, at, at + step)) for at in range(0, 2**32, step))
    print(f"{name}: {error:.3f} ulp at {place!r}")
    assert error <= BOUNDS[name][0], f"{name}({place!r}) is wrong by {error:.3f} ulp"


def double_error(name: str, x: float, got: float) -> float:
    """In ulps, by mpmath; where the result is no finite number, or x is 0, it must have the bits that numpy gives."""
    with np.errstate(all="ignore"):
        known = FLOAT64[name](np.array([x]))
    if not np.isfinite(known[0]) or not np.isfinite(x) or x == 0:
        return 0.0 if same(np.array([got]), known) else np.inf
    if not np.isfinite(got):
        return np.inf
    with mpmath.workprec(200):
        exact = getattr(mpmath, name)(mpmath.mpf(x))
        exponent = max(mpmath.frexp(exact)[1] - 1, -1022)
        return float(abs(mpmath.ldexp(exact - got, 52 - exponent)))


@pytest.mark.parametrize("name", BOUNDS)
def test_double_is_within_its_bound_of_mpmath(widest: ctypes.CDLL, name: str) -> None:
    x = doubles(320)
    found = [double_error(name, a, y) for a, y in zip(x.tolist(), run(widest, name, x).tolist())]
    error, place = max(zip(found, x.tolist()))
    assert error <= BOUNDS[name][1], f"{name}({place!r}) is wrong by {error:.3f} ulp"


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no long double of 64 bits")
@pytest.mark.parametrize("name", [name for name in BOUNDS if name != "erf"])
def test_double_is_within_its_bound_of_long_double(widest: ctypes.CDLL, name: str) -> None:
    error, place = worst(widest, name, doubles(200_000))
    assert error <= BOUNDS[name][1], f"{name}({place!r}) is wrong by {error:.3f} ulp"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TORCH)
def test_exact_functions_are_those_of_torch(widest: ctypes.CDLL, name: str, dtype: type) -> None:
    with np.errstate(all="ignore"):
        numbers = np.array(SPECIAL).astype(dtype)
        sample = patterns(99991).astype(dtype)
    numbers = np.concatenate([numbers, -numbers])
    if name in UNARY:
        a, b = np.concatenate([numbers, sample]), None
        expected = TORCH[name](torch.from_numpy(a))
    else:
        a, b = (np.ascontiguousarray(x.ravel()) for x in np.meshgrid(numbers, numbers))
        expected = TORCH[name](torch.from_numpy(a), torch.from_numpy(b))
    got, known = run(widest, name, a, b), expected.numpy().astype(dtype)
    if name in ("min", "max", "at_least", "at_most", "lerp"):  # of 0 and -0 either
        got, known = got + dtype(0), known + dtype(0)
    assert same(got, known), [
        (a[i], b is not None and b[i], got[i], known[i]) for i in np.flatnonzero(got != known)[:5]
    ]


def test_all_builds_give_the_same_bits(builds: dict[tuple[int, str], ctypes.CDLL]) -> None:
    first, *others = builds
    for name in UNARY:
        for x in (patterns(8191), doubles(200_000, seed=1)):
            expected = run(builds[first], name, x)
            for other in others:
                assert same(run(builds[other], name, x), expected), (name, x.dtype, first, other)


@pytest.mark.slow
def test_the_coefficients_are_those_that_the_script_prints() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "coefficients.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {x for line in printed.splitlines() for x in line.split(": ")[1].split("  //")[0].split(", ")}
    text = HEADER.read_text() + HEADER.with_name("special.h").read_text()
    assert len(numbers) > 100
    assert not [x for x in numbers if x.removesuffix(".0f").removesuffix(".0") not in text]
