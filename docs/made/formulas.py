r"""The formula and the source of every rule, for people: tests compare each with its row of the package's tables.

A formula is text that sympy reads; an optimizer's and a schedule's are in its row, beside the code. It is printed as
TeX, and computed by the tests. A row of a table without a formula ends the build of the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar

import sympy

from gpubp.maths.optimizers import Optimizer

WORDS = {  # names that are not printed as sympy prints them
    "lr": r"\eta", "eps": r"\epsilon", "p": "w", "wd": r"\lambda", "momentum": r"\mu", "momentum_decay": r"\psi",
    "quantile": "q", "drift": "D", "now": r"\mu_t", "following": r"\mu_{t+1}", "product": r"\Pi",
    "power1": "P_1", "power2": "P_2", "rate": r"\eta_t", "eta_min": r"\eta_{\min}", "scheduled": r"\eta_s",
    "low": r"\eta_0", "least": r"\eta_{\mathrm{last}}", "step_size": r"S", "pct_start": "a", "div_factor": "b",
    "final_div_factor": "c", "timescale": r"\tau", "peak": r"s_1", "total": "T", "step": "s", "square": "v",
    "mean": "m", "largest": r"v_{\max}", "moved": "u", "direction": "d", "velocity": "v", "scale": "k",
    "plateau_min_lr": r"\eta_{\min}",
}  # fmt: skip
NAMES = [*WORDS, "x", "o", "t", "g", "alpha", "beta1", "beta2", "rho", "delta", "gamma", "I", "O"]
SYMBOLS = {name: sympy.Symbol(name, real=True) for name in NAMES}
FUNCTIONS = {"min": sympy.Min, "max": sympy.Max}
TEX = {SYMBOLS[name]: word for name, word in WORDS.items()}


@cache
def read(text: str) -> Any:
    """The expression that a formula is, as it is written."""
    return sympy.parse_expr(text, local_dict=SYMBOLS | FUNCTIONS, evaluate=False)


def tex(text: str) -> str:
    """A formula as TeX."""
    return str(sympy.latex(read(text), order="none", symbol_names=TEX, ln_notation=False))


def computed(text: str, **values: float) -> float:
    """The value of a formula; its names must be among `values`."""
    expression = read(text)
    names = sorted(expression.free_symbols, key=str)
    made = sympy.lambdify(names, expression, modules=["scipy", "numpy"])
    return float(made(*(values[str(name)] for name in names)))


class Formula(NamedTuple):
    """value and slope: text for sympy. source: where it was published. note: what to know of it, or nothing."""

    value: str
    slope: str
    source: str
    note: str = ""


class Source(NamedTuple):
    """Of an optimizer or schedule, whose formulas are in its row: where it was published, and what to know of it."""

    source: str
    note: str = ""


Row = TypeVar("Row")


def of(table: Mapping[str, Row], name: str, kind: str) -> Row:
    """The formula of a rule. Raises LookupError if it has none."""
    if name not in table:
        raise LookupError(f"{kind} {name!r} has no formula: docs/made/formulas.py needs a row for it")
    return table[name]


def steps(rule: Optimizer) -> list[tuple[str, str]]:
    """Names and formulas of what a step computes, one after the other; the last is the new weight."""
    made = [*rule.formulas.items()]
    way = f"({made.pop()[1]})" if made[-1][0] == "direction" else "direction"
    decay = [("p", "p - lr*wd*p")] if rule.decoupled else []
    return [*decay, *made, ("p", f"p - {'rate' if 'rate' in rule.formulas else 'lr'}*{way}")]


def either(above: str, below: str) -> str:
    """One formula for x > 0, another for the rest."""
    return f"Piecewise(({above}, x > 0), ({below}, True))"


ACTIVATIONS: dict[str, Formula] = {
    "identity": Formula("x", "1", "", "For the output of a regression, and of losses that take logits."),
    "sigmoid": Formula(
        "(1 + exp(-x))**-1",
        "exp(-x) / (1 + exp(-x))**2",
        'Verhulst, "Recherches mathématiques sur la loi d\'accroissement de la population", 1845',
        "The tutorial's. The code computes the slope from the out: out (1 - out).",
    ),
    "tanh": Formula("tanh(x)", "1 - tanh(x)**2", 'LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998'),
    "relu": Formula(
        either("x", "0"), either("1", "0"),
        'Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010',
    ),
    "leaky_relu": Formula(
        either("x", "x/100"), either("1", "1/100"),
        'Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", 2013',
    ),
    "elu": Formula(
        either("x", "exp(x) - 1"), either("1", "exp(x)"),
        'Clevert, Unterthiner, Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2016',
    ),
    "selu": Formula(
        either("wd*x", "wd*alpha*(exp(x) - 1)"), either("wd", "wd*alpha*exp(x)"),
        'Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017',
        "α is 1.6732632, λ 1.0507010. With weights of mean 0 and variance 1 / I, outs stay near mean 0 and variance 1.",
    ),
    "silu": Formula(
        "x/(1 + exp(-x))", "(1 + exp(-x))**-1 + x*exp(-x)/(1 + exp(-x))**2",
        'Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation", 2018',
        "Also called swish.",
    ),
    "gelu": Formula(
        "x*(1 + erf(x/sqrt(2)))/2", "(1 + erf(x/sqrt(2)))/2 + x*exp(-x**2/2)/sqrt(2*pi)",
        'Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016',
    ),
    "gelu_tanh": Formula(
        "x/2 * (1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))",
        "(1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))/2"
        " + x/2 * (1 - tanh(sqrt(2/pi)*(x + 0.044715*x**3))**2) * sqrt(2/pi)*(1 + 3*0.044715*x**2)",
        'Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016', "gelu without an error function.",
    ),
    "softplus": Formula(
        "log(1 + exp(x))", "(1 + exp(-x))**-1",
        'Dugas, Bengio, Bélisle, Nadeau, Garcia, "Incorporating Second-Order Functional Knowledge for Better Option'
        ' Pricing", 2000',
    ),
    "softsign": Formula(
        "x/(1 + Abs(x))", "(1 + Abs(x))**-2",
        'Glorot, Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", 2010',
    ),
    "hard_tanh": Formula(
        "Piecewise((-1, x < -1), (x, x <= 1), (1, True))", "Piecewise((1, Abs(x) < 1), (0, True))",
        'Collobert, "Large Scale Machine Learning", 2004',
    ),
    "sine": Formula(
        "sin(x)", "cos(x)",
        'Sitzmann, Martel, Bergman, Lindell, Wetzstein, "Implicit Neural Representations with Periodic Activation'
        ' Functions", 2020',
    ),
}  # fmt: skip

HUBER = "Piecewise(((o - t)**2/2, Abs(o - t) <= delta), (delta*(Abs(o - t) - delta/2), True))"
LOSSES: dict[str, Formula] = {
    "half_squared_error": Formula("(o - t)**2/2", "o - t", "The tutorial's", "Summed over the outputs."),
    "mean_squared_error": Formula(
        "(o - t)**2", "2*(o - t)",
        'Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae", 1823',
        "The prediction is the mean of the target.",
    ),
    "mean_absolute_error": Formula(
        "Abs(o - t)", "sign(o - t)", "Boscovich, 1757; Laplace, 1793", "The prediction is the median."
    ),
    "huber": Formula(
        HUBER, "Max(Min(o - t, delta), -delta)", 'Huber, "Robust Estimation of a Location Parameter", 1964',
        "Squared near the target, linear beyond δ.",
    ),
    "log_cosh": Formula("log(cosh(o - t))", "tanh(o - t)", "", "Near huber with δ = 1, and smooth everywhere."),
    "quantile": Formula(
        "Max((1 - quantile)*(o - t), -quantile*(o - t))",
        "Piecewise((1 - quantile, o > t), (-quantile, True))",
        'Koenker, Bassett, "Regression Quantiles", 1978', "The prediction is the quantile q.",
    ),
    "poisson": Formula(
        "exp(o) - t*o", "exp(o) - t", 'Nelder, Wedderburn, "Generalized Linear Models", 1972',
        "For counts: the out is the logarithm of the rate.",
    ),
    "hinge": Formula(
        "Max(0, 1 - t*o)", "Piecewise((-t, t*o < 1), (0, True))", 'Cortes, Vapnik, "Support-Vector Networks", 1995',
        "Targets are -1 and 1.",
    ),
    "binary_cross_entropy": Formula(
        "log(1 + exp(o)) - t*o", "(1 + exp(-o))**-1 - t",
        'Cox, "The Regression Analysis of Binary Sequences", 1958',
        "The out is a logit, so a network ends in identity; the target is from 0 to 1. The code computes the same"
        " without large exponentials.",
    ),
    "cross_entropy": Formula(
        "", "",
        'Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990; label smoothing:'
        ' Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision", 2016',
        "The outs are logits, one per class; the target is the number c of the class. With label smoothing s the"
        " target is 1 - s for c, plus s / O for every class.",
    ),
}  # fmt: skip
CROSS_ENTROPY = (  # of all outs of a sample, so not a formula of one out and one target
    r"E = \log \sum_k e^{o_k} - o_c",
    r"\frac{\partial E}{\partial o_k} = \frac{e^{o_k}}{\sum_j e^{o_j}} - [k = c]",
)

POWERS = (
    "P₁ and P₂, the powers of β₁ and β₂, start at 1. The corrections of m and v are in the rate and in ε, as at the end"
    " of section 2 of Adam's paper."
)
OPTIMIZERS: dict[str, Source] = {
    "sgd": Source('Robbins, Monro, "A Stochastic Approximation Method", 1951'),
    "momentum": Source('Polyak, "Some Methods of Speeding up the Convergence of Iteration Methods", 1964'),
    "nesterov": Source("Nesterov, 1983; in this form Sutskever, Martens, Dahl, Hinton, 2013"),
    "adagrad": Source(
        'Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011'
    ),
    "rmsprop": Source("Tieleman, Hinton, Coursera lecture 6e, 2012"),
    "adadelta": Source('Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012'),
    "adam": Source('Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015', POWERS),
    "amsgrad": Source('Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", 2018', POWERS),
    "adamw": Source(
        'Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019',
        f"{POWERS} Weight decay is decoupled: it shrinks the weight, and does not enter the means.",
    ),
    "nadam": Source(
        'Dozat, "Incorporating Nesterov Momentum into Adam", 2016', "P₂, D and Π start at 1; ψ is `momentum_decay`."
    ),
    "lion": Source(
        'Chen and others, "Symbolic Discovery of Optimization Algorithms", 2023', "Weight decay is decoupled."
    ),
}

SCHEDULES: dict[str, Source] = {
    "constant": Source(""),
    "step": Source("torch's StepLR"),
    "exponential": Source("torch's ExponentialLR"),
    "cosine": Source(
        'Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017; torch\'s CosineAnnealingLR'
    ),
    "one_cycle": Source(
        'Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2019;'
        " torch's OneCycleLR with cosine annealing, without momentum cycling",
        "The learning rate η is the highest.",
    ),
    "inverse_sqrt": Source(
        'Vaswani and others, "Attention Is All You Need", 2017; transformers\' get_inverse_sqrt_schedule'
    ),
    "plateau": Source(
        "torch's ReduceLROnPlateau",
        "k starts at 1. After `plateau_patience` evaluations without a better loss it is multiplied by"
        " `plateau_factor`; a loss is better if it is below the best by the fraction `plateau_threshold`.",
    ),
}

INITIALISERS: dict[str, Formula] = {  # value: the factor of numbers between -1 and 1, or of normal ones
    "constant": Formula("1", "", "", "Every weight is `init_scale`."),
    "uniform": Formula("1", "", ""),
    "normal": Formula("1", "", ""),
    "glorot_uniform": Formula("sqrt(6/(I + O))", "", 'Glorot, Bengio, 2010, "Understanding the Difficulty ..."'),
    "glorot_normal": Formula("sqrt(2/(I + O))", "", "the same"),
    "kaiming_uniform": Formula("sqrt(6/I)", "", 'He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", 2015'),
    "kaiming_normal": Formula("sqrt(2/I)", "", "the same"),
    "torch_linear": Formula("sqrt(1/I)", "", "torch.nn.Linear", "Biases are drawn too."),
    "orthogonal": Formula("1", "", 'Saxe, McClelland, Ganguli, "Exact Solutions ...", 2014', "Orthonormal columns."),
}
