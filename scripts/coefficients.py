"""Prints the numbers of gpubp/kernel/arithmetic.h: python scripts/coefficients.py [word ...]; all take a minute.

Each polynomial has the least maximal error with rounded coefficients: Remez' exchange finds the polynomial,
the first coefficient is rounded to the type and fixed, and the others are found again, one after another. Needs mpmath,
which torch's sympy brings.
"""

import sys
from collections.abc import Callable

import numpy as np
from mpmath import atanh, cos, erf, erfc, expm1, floor, fsum, ln, lu_solve, matrix, mp, mpf, pi, sin, sqrt, tanh

mp.dps = 60
Function = Callable[[mpf], mpf]
GRID = 600


def rounded(x: mpf, bits: int) -> mpf:
    """The nearest number of `bits` significant bits."""
    with mp.workprec(bits):
        return +x


def remez(rows: list[list[mpf]], values: list[mpf]) -> tuple[list[mpf], mpf]:
    """The c with the least max |values - rows c|, and that maximum. Rows are points of a grid in order."""
    count = len(rows[0]) + 1
    picks = [round((1 - np.cos(np.pi * (i + 0.5) / count)) / 2 * (len(rows) - 1)) for i in range(count)]
    for _ in range(30):
        system = matrix([[*rows[p], (-1) ** i] for i, p in enumerate(picks)])
        *c, level = lu_solve(system, matrix([values[p] for p in picks]))
        error = [v - fsum(a * b for a, b in zip(row, c)) for row, v in zip(rows, values)]
        peaks: list[int] = []  # the largest error of each stretch of one sign
        for i, x in enumerate(error):
            if peaks and (x > 0) == (error[peaks[-1]] > 0):
                peaks[-1] = max(peaks[-1], i, key=lambda j: abs(error[j]))
            else:
                peaks.append(i)
        while len(peaks) > count:  # drop the smallest, and inside its smaller neighbour too: the signs still alternate
            sizes = [abs(error[p]) for p in peaks]
            i = sizes.index(min(sizes))
            if len(peaks) == count + 1 or i in (0, len(peaks) - 1):
                peaks.pop(0 if sizes[0] < sizes[-1] else -1)
            else:
                i -= sizes[i - 1] < sizes[i + 1]
                del peaks[i : i + 2]
        largest = max(abs(x) for x in error)
        if len(peaks) < count or largest <= abs(level) * mpf("1.001"):
            break
        picks = peaks
    return c, largest


def points(low: mpf, high: mpf) -> list[mpf]:
    """Chebyshev's points, denser at both ends."""
    return [(low + high) / 2 - (high - low) / 2 * mp.cos(pi * (i + mpf(1) / 2) / GRID) for i in range(GRID)]


def polynomial(f: Function, weight: Function, low: mpf, high: mpf, degree: int, bits: int) -> tuple[list[mpf], mpf]:
    """Rounded coefficients, the lowest first, and the largest weight(x) |f(x) - polynomial(x)| over low..high."""
    xs = points(mpf(low), mpf(high))
    w = [weight(x) for x in xs]
    values = [f(x) * a for x, a in zip(xs, w)]
    fixed: list[mpf] = []
    while len(fixed) <= degree:
        rows = [[x**k * a for k in range(degree + 1 - len(fixed))] for x, a in zip(xs, w)]
        c, _ = remez(rows, values)
        fixed.append(rounded(c[0], bits))
        values = [mp.sign(x) * (v - fixed[-1] * a) for x, v, a in zip(xs, values, w)]
        w = [abs(x) * a for x, a in zip(xs, w)]  # what is left is x (the rest): positive weights keep the signs apart
    return fixed, max(abs(v) for v in values)


HALF = ln(2) / 2 * mpf("1.0001")  # |r| after 2^n is taken out, and a little, as n is of a rounded x / ln 2
RATIO = ((sqrt(2) - 1) / (sqrt(2) + 1)) ** 2 * mpf("1.0001")  # s^2 for f = sqrt(2) - 1
EIGHTH = (pi / 4) ** 2 * mpf("1.0001")

# name: (function, weight that makes its error one of the result in ulps, interval, degree of float and of double)
POLYNOMIALS: dict[str, tuple[Function, Function, tuple[mpf, ...], tuple[int, int]]] = {
    "exp": (lambda r: expm1(r) / r, lambda r: abs(r) * (1 if r > 0 else 2), (-HALF, HALF), (4, 10)),
    "expm1": (lambda r: (expm1(r) - r) / r**2, lambda r: r * r / abs(expm1(r)), (-HALF, HALF), (4, 9)),
    "tanh": (
        lambda z: (tanh(sqrt(z)) / sqrt(z) - 1) / z,
        lambda z: z * sqrt(z) / tanh(sqrt(z)), (mpf(0), (HALF / 2) ** 2), (1, 5)),
    "log": (
        lambda z: (2 * atanh(sqrt(z)) / sqrt(z) - 2) / z,
        lambda z: z * sqrt(z) / (2 * atanh(sqrt(z))), (mpf(0), RATIO), (2, 6)),
    "erf below 1": (lambda z: erf(sqrt(z)) / sqrt(z) - 1, lambda z: sqrt(z) / erf(sqrt(z)), (mpf(0), mpf(1)), (5, 11)),
    "erf above 1": (lambda a: ln(erfc(a)), lambda a: erfc(a) / erf(a), (mpf(1), mpf(4), mpf(6)), (5, 17)),
    "sin": (
        lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z, lambda z: z * sqrt(z) / sin(sqrt(z)), (mpf(0), EIGHTH), (2, 5)),
    "cos": (
        lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2, lambda z: z * z / cos(sqrt(z)), (mpf(0), EIGHTH), (2, 5)),
}  # fmt: skip


def text(x: mpf, bits: int) -> str:
    """The shortest decimal that reads back as x."""
    return f"{np.float32(float(x))!s}f" if bits == 24 else repr(float(x))


def parts(x: mpf, count: int, bits: int, cut: bool) -> list[mpf]:
    """Numbers of the type whose sum is x; the first ones cut, not rounded, where all must have the sign of x."""
    found: list[mpf] = []
    for _ in range(count):
        part = rounded(x, bits)
        if cut and abs(part) > abs(x):
            part -= mp.ldexp(1, mp.frexp(part)[1] - bits)
        found.append(part)
        x -= part
    return found


def main(words: list[str]) -> None:
    def show(name: str, bits: int, numbers: list[mpf], error: mpf | None = None) -> None:
        note = "" if error is None else f"  // {float(error * 2 ** (bits - 1)):.3f} ulp before rounding"
        print(f"{name}, {'float' if bits == 24 else 'double'}: {', '.join(text(x, bits) for x in numbers)}{note}")

    def wanted(name: str) -> bool:
        return not words or any(word in name for word in words)

    for name, (f, weight, (low, *high), degrees) in POLYNOMIALS.items():
        for bits, end, degree in zip((24, 53), (high[0], high[-1]), degrees):
            if wanted(name):
                show(name, bits, *polynomial(f, weight, low, end, degree, bits))
    for bits in (24, 53):
        if wanted("ln2"):
            show("1 / ln 2", bits, parts(1 / ln(2), 1, bits, False))
            show("ln 2 in two parts", bits, parts(ln(2), 2, bits, False))
        if wanted("pi"):
            show("2 / pi", bits, parts(2 / pi, 1, bits, False))
            show("pi / 2 in three parts", bits, parts(pi / 2, 3, bits, True))
    if wanted("pi"):
        show("pi / 2 in two parts", 53, parts(pi / 2, 2, 53, False))
        with mp.workprec(1400):
            bits_of = int(floor(2 / +pi * mpf(2) ** 1216))
        print("2 / pi:", ", ".join(f"0x{bits_of >> 64 * (18 - i) & (2**64 - 1):016x}" for i in range(19)))


if __name__ == "__main__":
    main(sys.argv[1:])
