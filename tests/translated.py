"""Rules that test_translate.py compiles: every operation of translate.py in every form. Each is its text."""

import math
import operator  # noqa: F401  # for texts
from collections.abc import Callable
from typing import Any

import torch  # noqa: F401
from torch.nn import functional  # noqa: F401

Rule = Callable[..., Any]
INF, NAN = math.inf, math.nan


def parsed(text: str, names: str = "a, b, c") -> Rule:
    found: Rule = eval(f"lambda {names}: {text}", globals())
    return found


def rules(*texts: str) -> dict[str, Rule]:
    return {text: parsed(text) for text in texts}


def forms(function: str, method: str, *names: str) -> dict[str, Rule]:
    """Each of these functions of torch, and the method of that name."""
    return rules(*(form.replace("F", name) for name in names for form in (function, method)))


# Rules of a, b, c that must have torch's very bits, any NaN as good as another, and either zero of these.
EITHER_ZERO = {
    **rules("torch.clamp(a, min=0.5)", "torch.clamp(a, max=0.5)", "torch.clamp(a, -1, 1)", "torch.clamp(a, -0.1, 0.7)",
            "a.clamp(max=1)", "a.clamp(min=-1, max=INF)", "torch.clip(a, -2, 2)", "a.clip(min=-2)",
            "torch.clamp_min(a, 0.25)", "a.clamp_max(0.25)", "functional.relu(a)"),
    **forms("torch.F(a)", "a.F()", "relu", "sign"),
    **forms("torch.F(a, b)", "a.F(b)", "maximum", "minimum", "max", "min"),
}  # fmt: skip
EXACT = {
    **rules(
        "a + b", "a - b", "a * b", "a / b", "-a", "+a", "abs(a)", "1 - a", "2 / a", "2 + a", "0.1 * a", "a / 3",
        "operator.iadd(a, b)", "True * a", "a + INF", "a * -INF", "a * NAN", "a * -0.0", "a + 1e-40",
        "a**1", "a**2", "a**3", "a**-1", "torch.pow(a, 2)", "torch.pow(a, exponent=3)", "a.pow(2.0)",
        "(a > b) * c", "(a < b) * c", "(a >= b) * c", "(a <= b) * c", "(a == b) * c", "(a != b) * c",
        "1.0 - (a > 0) * b", "(a > 0) * (b > 0) * c", "(a > 0.1) * c",
        "(a > 0).to(a.dtype) * 0.1", "0.1 * (a > 0).type_as(b)", "(a > 0).to(torch.float32) * b + (b > 0).float() * c",
        "(a > 0).to(b) + (b > 0).type(c.dtype) * 0.1", "(a > 0).to(device=b.device, dtype=c.dtype) * 0.1",
        "((a > 0) * 2 - 1) * b + torch.where(c > 0, 1, -3)", "(a > 0) * 0.5 * c + torch.where(b > 0, 1.0, 0.25)",
        "torch.maximum(a > 0, b > 0) * c", "torch.ones_like(a > 0) * c + torch.zeros_like(b > 0) * a",
        "torch.where(a > b, b, c)", "torch.where(a > b, 1.0, torch.where(a < b, c, -INF))", "a.where(b > 0, c)",
        "torch.where(a > b, 0.1, c) + torch.where(a > b, c, 0.7)", "torch.where(a > 0, b, other=c)",
        "torch.where(a > b, torch.full_like(a, 1.1), torch.full_like(a, 0.1))",
        "torch.add(a, b, alpha=2)", "a.sub(b, alpha=4)", "torch.add(a, other=b, alpha=1)",
        "torch.ones_like(a) * b", "torch.zeros_like(a) + b", "torch.full_like(a, 3)", "torch.full_like(a, 0.1) * b",
        "torch.ones_like(a, dtype=b.dtype) * 0.1", "a * torch.tensor(0.1) + torch.tensor(0.1, dtype=torch.float64)",
        "torch.full_like(a, fill_value=-INF)", "(a > b).float() * c",
        "a.to(b.dtype).to(dtype=c.dtype).to(b).type_as(c) * 2", "0.25", "b",
    ),
    **forms("torch.F(a)", "a.F()", "neg", "negative", "abs", "absolute", "floor", "square", "reciprocal"),
    **forms("torch.F(a, b)", "a.F(b)", "add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide"),
    **forms("torch.F(a, b) * c", "a.F(b) * c", "gt", "lt", "ge", "le", "eq", "ne", "greater", "less"),
    **EITHER_ZERO,
}  # fmt: skip

# Within 4 ulps of torch in float64, or of the largest number below the smallest that is not denormal.
ROUNDED = {
    **rules("torch.where(a < 0, NAN, a**0.5)", "torch.where(a < 0, NAN, a**-0.5)",  # of -inf pow is inf and sqrt NaN
            "a**-2", "functional.sigmoid(a)"),
    **forms("torch.F(a)", "a.F()", "sqrt", "exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos", "sigmoid",
            "rsqrt"),
}  # fmt: skip
# Of numbers of size 1 to 10; they round differently than torch, which uses no fused multiply-add, or another form.
SUMS = rules(
    "torch.lerp(a, b, torch.clamp(c, 0, 1))", "torch.lerp(a, end=b, weight=torch.clamp(c, 0, 1))", "a.lerp(b, 0.25)",
    "torch.addcmul(a, b, c)", "torch.addcmul(a, b, c, value=-0.3)", "a.addcmul(b, c, value=2)",
    "torch.addcdiv(a, b, c)", "torch.addcdiv(a, b, c, value=-3)", "torch.add(a, b, alpha=0.3)",
)  # fmt: skip
RULES = [*EXACT.items(), *ROUNDED.items(), *SUMS.items()]
