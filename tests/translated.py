"""Rules of three arguments that test_translate.py compiles: every operation of translate.py in every form."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

Rule = Callable[..., Any]
INF, NAN = math.inf, math.nan


def forms(rule: Callable[[Rule], Rule], *names: str) -> dict[str, Rule]:
    """The rule of each of these functions of torch, and of the method of that name."""
    return {f"torch.{name}, function": rule(getattr(torch, name)) for name in names} | {
        f"torch.{name}, method": rule(lambda a, *rest, name=name: getattr(a, name)(*rest)) for name in names
    }


# Rules of a, b, c that must have torch's very bits, any NaN as good as another, and either zero of maximum and minimum.
EXACT: dict[str, Rule] = {
    "a + b": lambda a, b, c: a + b,
    "a - b": lambda a, b, c: a - b,
    "a * b": lambda a, b, c: a * b,
    "a / b": lambda a, b, c: a / b,
    "-a": lambda a, b, c: -a,
    "+a": lambda a, b, c: +a,
    "abs(a)": lambda a, b, c: abs(a),
    "1 - a": lambda a, b, c: 1 - a,
    "2 / a": lambda a, b, c: 2 / a,
    "2 + a": lambda a, b, c: 2 + a,
    "0.1 * a": lambda a, b, c: 0.1 * a,
    "a / 3": lambda a, b, c: a / 3,
    "a += b": lambda a, b, c: operator.iadd(a, b),
    "True * a": lambda a, b, c: True * a,
    "a + inf": lambda a, b, c: a + INF,
    "a * -inf": lambda a, b, c: a * -INF,
    "a * nan": lambda a, b, c: a * NAN,
    "a * -0.0": lambda a, b, c: a * -0.0,
    "1e-40 + a": lambda a, b, c: a + 1e-40,
    "a ** 1": lambda a, b, c: a**1,
    "a ** 2": lambda a, b, c: a**2,
    "a ** 3": lambda a, b, c: a**3,
    "a ** -1": lambda a, b, c: a**-1,
    "torch.pow": lambda a, b, c: torch.pow(a, 2),
    "torch.pow, exponent": lambda a, b, c: torch.pow(a, exponent=3),
    "a.pow": lambda a, b, c: a.pow(2.0),
    "a > b": lambda a, b, c: (a > b) * c,
    "a < b": lambda a, b, c: (a < b) * c,
    "a >= b": lambda a, b, c: (a >= b) * c,
    "a <= b": lambda a, b, c: (a <= b) * c,
    "a == b": lambda a, b, c: (a == b) * c,
    "a != b": lambda a, b, c: (a != b) * c,
    "0 < a": lambda a, b, c: 1.0 - (a > 0) * b,
    "masks multiply": lambda a, b, c: (a > 0) * (b > 0) * c,
    "a > 0.1": lambda a, b, c: (a > 0.1) * c,
    "a mask as a number": lambda a, b, c: (a > 0).to(a.dtype) * 0.1,
    "a mask as another number": lambda a, b, c: 0.1 * (a > 0).type_as(b),
    "a mask of some type": lambda a, b, c: (a > 0).to(torch.float32) * b + (b > 0).float() * c,
    "a mask of a number's type": lambda a, b, c: (a > 0).to(b) + (b > 0).type(c.dtype) * 0.1,
    "a mask of a number's type and place": lambda a, b, c: (a > 0).to(device=b.device, dtype=c.dtype) * 0.1,
    "masks and whole numbers": lambda a, b, c: ((a > 0) * 2 - 1) * b + torch.where(c > 0, 1, -3),
    "masks and halves": lambda a, b, c: (a > 0) * 0.5 * c + torch.where(b > 0, 1.0, 0.25),
    "the larger of two masks": lambda a, b, c: torch.maximum(a > 0, b > 0) * c,
    "a mask's shape": lambda a, b, c: torch.ones_like(a > 0) * c + torch.zeros_like(b > 0) * a,
    "torch.where": lambda a, b, c: torch.where(a > b, b, c),
    "torch.where, numbers": lambda a, b, c: torch.where(a > b, 1.0, torch.where(a < b, c, -INF)),
    "a.where": lambda a, b, c: a.where(b > 0, c),
    "torch.where, a number": lambda a, b, c: torch.where(a > b, 0.1, c) + torch.where(a > b, c, 0.7),
    "torch.where, filled": lambda a, b, c: torch.where(a > b, torch.full_like(a, 1.1), torch.full_like(a, 0.1)),
    "torch.where, other": lambda a, b, c: torch.where(a > 0, b, other=c),
    "torch.clamp, min": lambda a, b, c: torch.clamp(a, min=0.5),
    "torch.clamp, max": lambda a, b, c: torch.clamp(a, max=0.5),
    "torch.clamp": lambda a, b, c: torch.clamp(a, -1, 1),
    "torch.clamp, tenths": lambda a, b, c: torch.clamp(a, -0.1, 0.7),
    "a.clamp, max": lambda a, b, c: a.clamp(max=1),
    "a.clamp, both": lambda a, b, c: a.clamp(min=-1, max=INF),
    "torch.clip": lambda a, b, c: torch.clip(a, -2, 2),
    "a.clip": lambda a, b, c: a.clip(min=-2),
    "torch.clamp_min": lambda a, b, c: torch.clamp_min(a, 0.25),
    "a.clamp_max": lambda a, b, c: a.clamp_max(0.25),
    "torch.add, alpha": lambda a, b, c: torch.add(a, b, alpha=2),
    "a.sub, alpha": lambda a, b, c: a.sub(b, alpha=4),
    "torch.add, other": lambda a, b, c: torch.add(a, other=b, alpha=1),
    "torch.ones_like": lambda a, b, c: torch.ones_like(a) * b,
    "torch.zeros_like": lambda a, b, c: torch.zeros_like(a) + b,
    "torch.full_like": lambda a, b, c: torch.full_like(a, 3),
    "torch.full_like, a tenth": lambda a, b, c: torch.full_like(a, 0.1) * b,
    "torch.ones_like, dtype": lambda a, b, c: torch.ones_like(a, dtype=b.dtype) * 0.1,
    "torch.tensor": lambda a, b, c: a * torch.tensor(0.1) + torch.tensor(0.1, dtype=torch.float64),
    "torch.full_like, fill_value": lambda a, b, c: torch.full_like(a, fill_value=-INF),
    "a.float of a mask": lambda a, b, c: (a > b).float() * c,
    "a.to": lambda a, b, c: a.to(b.dtype).to(dtype=c.dtype).to(b).type_as(c) * 2,
    "a number": lambda a, b, c: 0.25,
    "functional.relu": lambda a, b, c: functional.relu(a),
    "an argument": lambda a, b, c: b,
    **forms(lambda f: lambda a, b, c: f(a),
            "neg", "negative", "abs", "absolute", "sign", "floor", "square", "reciprocal", "relu"),
    **forms(lambda f: lambda a, b, c: f(a, b), "add", "sub", "subtract", "mul", "multiply", "div", "divide",
            "true_divide", "maximum", "minimum", "max", "min"),
    **forms(lambda f: lambda a, b, c: f(a, b) * c, "gt", "lt", "ge", "le", "eq", "ne", "greater", "less"),
}  # fmt: skip

# Within 4 ulps of torch in float64, or of the largest number below the smallest that is not denormal.
ROUNDED: dict[str, Rule] = {
    "a ** 0.5": lambda a, b, c: torch.where(a < 0, NAN, a**0.5),  # of -inf pow is inf and sqrt NaN
    **forms(lambda f: lambda a, b, c: f(a),
            "sqrt", "exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos", "sigmoid", "rsqrt"),
    "a ** -0.5": lambda a, b, c: torch.where(a < 0, NAN, a**-0.5),
    "a ** -2": lambda a, b, c: a**-2,
    "functional.sigmoid": lambda a, b, c: functional.sigmoid(a),
}  # fmt: skip
# Of numbers of size 1 to 10; they round differently than torch, which uses no fused multiply-add, or another form.
SUMS: dict[str, Rule] = {
    "torch.lerp": lambda a, b, c: torch.lerp(a, b, torch.clamp(c, 0, 1)),
    "torch.lerp, words": lambda a, b, c: torch.lerp(a, end=b, weight=torch.clamp(c, 0, 1)),
    "a.lerp": lambda a, b, c: a.lerp(b, 0.25),
    "torch.addcmul": lambda a, b, c: torch.addcmul(a, b, c),
    "torch.addcmul, value": lambda a, b, c: torch.addcmul(a, b, c, value=-0.3),
    "a.addcmul": lambda a, b, c: a.addcmul(b, c, value=2),
    "torch.addcdiv": lambda a, b, c: torch.addcdiv(a, b, c),
    "torch.addcdiv, value": lambda a, b, c: torch.addcdiv(a, b, c, value=-3),
    "torch.add, alpha": lambda a, b, c: torch.add(a, b, alpha=0.3),
}
RULES = [*EXACT.items(), *ROUNDED.items(), *SUMS.items()]
