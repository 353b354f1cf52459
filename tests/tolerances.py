"""Every tolerance of the tests, and why it is what it is. Promises of equal bits have none: helpers.same_bits.

Each is a pair for torch.testing.assert_close: relative, absolute. eps is 2.2e-16 in float64, 1.2e-7 in float32.
"""

import torch

# A gradient in float64 against autograd: some hundred terms of size 1, each rounded a few times, are off by 1e-13; a
# wrong formula by a percent or more.
GRADIENT = {"rtol": 1e-10, "atol": 1e-12}

# An activation in float32 against float64: 1 / (1 + e) and the like round three to five times.
SINGLE = {"rtol": 2e-6, "atol": 1e-6}

# One optimizer step on given gradients in float64, 50 times: torch orders a few multiplications otherwise, so each step
# may differ by some eps of the parameter. Measured: 3e-15.
OPTIMIZER = {"rtol": 1e-12, "atol": 1e-13}

# The same through forward and backward: 50 steps feed a difference of some eps back into the gradient, and rules that
# divide by the gradient's size enlarge it where it is near 0. Measured: 4e-10 for rmsprop, 1e-14 for the others; a
# wrong formula is off by 1e-3.
TRAINING = {"rtol": 1e-8, "atol": 1e-9}

# A learning rate after 50 steps: torch multiplies step by step where gpubp takes one power, so 50 roundings of eps.
SCHEDULE = {"rtol": 1e-12, "atol": 1e-16}

# product_in_order against torch's product: up to 784 terms of size 1 in another order are off by 784 eps.
PRODUCT = {"float32": {"rtol": 1e-4, "atol": 1e-4}, "float64": {"rtol": 2e-13, "atol": 2e-13}}

# Quantiles of 40,000 random numbers, in units of the distribution's width: their standard error is at most 0.011 at the
# 2 % quantile of a normal distribution; two samples, five standard errors.
QUANTILE = 0.08

# Orthonormal vectors in float64, cast to float64: 64 products of eps each.
ORTHONORMAL = {"rtol": 0.0, "atol": 1e-13}

# A module of torch.nn and the same weights through forward(), float64: the order of sums differs, as in GRADIENT.
MODULE = {"rtol": 1e-12, "atol": 1e-13}


def compiled_step(eps: float, terms: int, layers: int) -> dict[str, float]:
    """One step of the compiled engine against eager, from the same numbers, of size 1.

    Both add up to `terms` products of size 1, in other orders and one of them with fused multiply-adds: half an eps per
    term and engine, so terms * eps. A layer's functions, ours within 3 ulps and torch's within 4, are off by 8 eps with
    the arithmetic around them. The layers' errors add up. Weights and rates are below 1, and the divisors' eps is as
    large as the rate, so that nothing is enlarged on its way, not even by rules that divide by the gradient's size.
    Measured: 0.3 of it at most; a wrong formula is off by 1e-3.
    """
    size = layers * (terms + 8) * eps
    return {"rtol": size, "atol": size}


# 20 steps of the compiled engine and of eager in float64, with smooth activations and losses: compiled_step of three
# layers and 25 terms, 20 times; the rates are small, so training itself enlarges no difference. Measured: 1e-15.
COMPILED_TRAINING = {"rtol": 1e-12, "atol": 1e-12}

# Losses and metrics of the compiled engines against eager's, in float64: errors are off by roundings of eps, sums of a
# thousand of them by a few more, whatever the order; R2 of these targets enlarges that by 3 at most.
EVALUATION = {"rtol": 1e-12, "atol": 1e-14}

# A prediction in float64 against the same by hand: inputs to some eps, outs as in MODULE, then an exponential or the
# units of the targets, which keep relative errors but where the outs' own offset takes some of the digits.
PREDICTION = {"rtol": 1e-9}


def small_error(eps: float) -> float:
    """A loss or its slope against its formula, relative: an exponential, a logarithm and a division within 4 ulps each,
    and some roundings beside. Measured: 5 eps; what cancels loses all digits for small errors."""
    return 12 * eps


# Sums of ten thousand equal numbers in float32, 64 at a time or by torch's cascade: some 64 roundings on every level.
# Measured: 6e-7; one after the other 3e-4.
LONG_SUM = {"rtol": 4e-6, "atol": 0.0}

# Predictions of an exported file against ours, relative to the largest: sums in another order and functions within some
# ulps, a few eps per layer. Measured: 5e-7 and 1e-15. 1e-6 is promised in float32.
EXPORTED = {torch.float32: 1e-6, torch.float64: 1e-12}

# Entropy and mutual information of an exported file against ours, in nats: mutual information is a difference of sums
# that may be equal, so an absolute floor. Measured over 400 models: 1e-7 and 2e-13, most of it within 1e-6 relative.
DOUBT = {torch.float32: {"rtol": 1e-6, "atol": 1e-7}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}
