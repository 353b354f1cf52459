"""Rules of the tables as C++ text: each is called once with torch.fx proxies, and every operation becomes a line.

A rule may use the operations in the table OPERATIONS: arithmetic, comparisons and torch's elementwise functions, as
functions or methods; others are refused by name. In C++ every number has the lanes' type, so torch also computes each
operation once, and it is refused if torch's result has another dtype: `torch.where(net > 0, 1.0, 0.1)` is
float32 whatever net is.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from ..errors import EngineError

# Function, operator or method -> C++ with a placeholder per argument; # marks arguments that must be in lanes.
OPERATIONS: dict[str, str] = {
    "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "truediv": "({0} / {1})", "div": "({0} / {1})",
    "neg": "(-{0})", "pos": "{0}", "to": "{0}", "float": "{0}", "double": "{0}",
    "square": "({0} * {0})", "reciprocal": "(T(1) / {0})", "rsqrt": "(T(1) / sqrt_({0}))",
    "sigmoid": "(T(1) / (T(1) + exp_(-{0})))", "relu": "at_least_({0}, splat<V>(T(0)))",
    "ones_like": "splat<V>(T(1))", "zeros_like": "splat<V>(T(0))",
    "full_like": "#{1}", "maximum": "max_(#{0}, #{1})", "minimum": "min_(#{0}, #{1})",
    "where": "where_(#{0}, #{1}, #{2})", "lerp": "lerp_(#{0}, #{1}, #{2})",
    "addcmul": "fma_(#{1}, #{2}, #{0})", "addcdiv": "({0} + {1} / {2})",
    "clamp_min": "at_least_(#{0}, #{1})", "clamp_max": "at_most_(#{0}, #{1})",
    **{name: f"{name}_(#{{0}})" for name in
       ("exp", "expm1", "log", "log1p", "sqrt", "abs", "sign", "tanh", "erf", "sin", "cos", "floor")},
    **{name: f"{name}_(#{{0}}, #{{1}})" for name in ("gt", "lt", "ge", "le", "eq", "ne")},
}  # fmt: skip
# Exponents, all constants.
POWERS = {0.5: "sqrt_({0})", 1: "{0}", 2: "({0} * {0})", 3: "({0} * {0} * {0})", -0.5: "(T(1) / sqrt_({0}))",
          -1: "(T(1) / {0})", -2: "(T(1) / ({0} * {0}))"}  # fmt: skip
COMPARISONS = ("gt", "lt", "ge", "le", "eq", "ne")
# Operations that torch computes in another dtype, with the same numbers: on bools (not "add", which is "or"); and on
# bools and literals.
TRUTHS = (*COMPARISONS, "mul", "maximum", "minimum", "where", "ones_like", "zeros_like")
SCALED = ("mul", "where", "to", "float", "double")
CONSTANT = ("ones_like", "zeros_like", "full_like")  # use only the shape of their first argument
SAME = {"absolute": "abs", "max": "maximum", "min": "minimum", "clip": "clamp", "multiply": "mul", "subtract": "sub",
        "divide": "div", "true_divide": "div", "negative": "neg", "greater": "gt", "less": "lt", "type": "to",
        "type_as": "to"}  # fmt: skip
FUNCTIONS = sorted({*OPERATIONS, "clamp"} - {*COMPARISONS, "add", "sub", "mul", "truediv", "div", "neg", "pos"})
ALLOWED = f"arithmetic, comparisons, {', '.join(FUNCTIONS)}, and pow by {', '.join(map(str, POWERS))}"


def trace(rule: Callable[..., Any], names: Sequence[str]) -> tuple[fx.Graph, Any]:
    """Call `rule` with a proxy for each of `names`. -> its graph, and its results with proxies replaced by nodes.
    Raises EngineError if the graph does not reproduce the rule's numbers, as when the rule changes some in place."""
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    proxies = [fx.Proxy(graph.placeholder(f"_{name}"), tracer) for name in names]

    def node(value: Any) -> Any:
        if isinstance(value, fx.Proxy):
            return value.node
        if isinstance(value, Mapping):
            return {name: node(each) for name, each in value.items()}
        if isinstance(value, (tuple, list)):
            return tuple(map(node, value))
        return value

    result = node(called(rule, proxies))
    one, other = (
        [torch.linspace(-1.5, 2, 3, dtype=torch.float64, device="cpu") + number / 7 for number in range(len(names))]
        for _ in range(2)
    )
    ours = run(graph, flat(result), one)
    if ours and not all(map(alike, ours, flat(called(rule, other)))):
        raise EngineError(
            f"rule {getattr(rule, '__name__', rule)!r} cannot be compiled: its operations alone give other numbers, as "
            'where it changes some in place; engine "eager" runs it'
        )
    return graph, result


def called(rule: Callable[..., Any], given: Sequence[Any]) -> Any:
    """The result of a rule. Raises EngineError instead of the rule's own errors."""
    try:
        return rule(*given)
    except Exception as error:
        name = getattr(rule, "__name__", rule)
        raise EngineError(
            f"rule {name!r} cannot be compiled: {error}; only arithmetic can, without Python control flow on "
            'numbers; engine "eager" runs it'
        ) from None


def flat(found: Any) -> list[Any]:
    """The parts of nested results, in order."""
    if isinstance(found, Mapping):
        return flat([*found.values()])
    return [each for part in found for each in flat(part)] if isinstance(found, (tuple, list)) else [found]


def run(graph: fx.Graph, results: Sequence[Any], samples: Sequence[torch.Tensor]) -> list[Any]:
    """The numbers of `results`, computing only what they need of the graph; none if torch refuses an operation."""
    known, wanted = dict[Any, Any](zip(graph.find_nodes(op="placeholder"), samples)), needed(results)
    try:
        for node in graph.nodes:
            if node in wanted and node not in known:
                known[node] = computed("", node, known)
    except EngineError:  # lines() will say why
        return []
    return [known.get(each, each) for each in results]


def alike(ours: Any, theirs: Any) -> bool:
    """Whether two results are the same numbers. If they are not numbers, lines() will say so."""
    if not all(isinstance(each, (torch.Tensor, int, float)) for each in (ours, theirs)):
        return True
    one, other = (torch.as_tensor(each, dtype=torch.float64) for each in (ours, theirs))
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, equal_nan=True)


def lines(rule: str, graph: fx.Graph, results: Sequence[Any], dtype: torch.dtype) -> list[str]:
    """A line of C++ for every operation that `results` need, for arguments of `dtype`. Raises EngineError for one
    that is not in OPERATIONS, or whose result has another dtype in torch."""
    text, known, wanted = [], {}, needed(results)
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = torch.ones(1, dtype=dtype, device="cpu")
        elif node in wanted:
            known[node] = computed(rule, node, known)
            if isinstance(known[node], (torch.dtype, torch.device)):  # taken from another number, in a conversion
                continue
            text.append(f"  const V {value(node)} = {expression(rule, node)};")
            if not faithful(node, known, dtype):
                found = getattr(known[node], "dtype", type(known[node]))
                raise EngineError(
                    f"rule {rule!r}: torch computes {_name(node)!r} in {found} here, but the numbers are {dtype}; "
                    'convert with .to(net.dtype), or fill with torch.full_like; engine "eager" runs it unchanged'
                )
    return text


def needed(results: Sequence[Any]) -> set[fx.Node]:
    """The nodes that `results` depend on, and `results` themselves."""
    found: set[fx.Node] = set()
    waiting = [value for value in results if isinstance(value, fx.Node)]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += one.all_input_nodes
    return found


def computed(rule: str, node: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
    """torch's result of one operation; `known` holds its arguments."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
    try:
        if isinstance(node.target, str):
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs)
    except Exception as error:
        says = f"{error}".partition("\n")[0]
        raise EngineError(f"rule {rule!r}: torch itself refuses operation {_name(node)!r}: {says}") from None


def faithful(node: fx.Node, known: Mapping[fx.Node, Any], dtype: torch.dtype) -> bool:
    """Whether `dtype` can hold torch's result."""
    name, result = _name(node), known[node]
    if not isinstance(result, torch.Tensor):  # torch.max(net, 0) is a pair
        return False
    if result.dtype == dtype:
        return True
    if result.dtype == torch.bool:
        return name in TRUTHS
    given = {known[each].dtype for each in node.all_input_nodes if isinstance(known[each], torch.Tensor)}
    if result.dtype == torch.int64:
        return given <= {torch.bool, torch.int64} and name != "full_like"
    literals = [each for each in (*node.args, *node.kwargs.values()) if isinstance(each, (int, float))]
    short = all(float(torch.tensor(each, dtype=result.dtype)) == each for each in literals)
    return name in SCALED and given == {torch.bool} and short


def depends(result: Any, on: Sequence[str]) -> bool:
    """Whether a result depends on one of the arguments `on`."""
    waiting, seen = [result], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, fx.Node) and one not in seen:
            if one.op == "placeholder" and str(one.target).removeprefix("_") in on:
                return True
            seen.add(one)
            waiting += [] if _name(one) in CONSTANT else one.all_input_nodes
    return False


def value(given: Any, lanes: bool = False) -> str:
    """A node's name, or a number of the lanes' element type T; with `lanes`, broadcast to lanes."""
    if isinstance(given, fx.Node):
        return f"of_{given.name}" if given.op != "placeholder" else str(given.target)
    number = float(given)
    text = f"T({number!r})" if math.isfinite(number) else "T(__builtin_nan(\"\"))" if number != number else (
        f"T({'-' if number < 0 else ''}__builtin_inf())")  # fmt: skip
    return f"splat<V>({text})" if lanes else text


def expression(rule: str, node: fx.Node) -> str:
    """One operation."""
    name = _name(node)
    args, kwargs = list(node.args), dict(node.kwargs)
    if "input" in kwargs:
        args.insert(0, kwargs.pop("input"))
    for word in ("other", "end", "weight", "exponent", "fill_value"):
        if word in kwargs:
            args.append(kwargs.pop(word))
    if kwargs.get("inplace") is False:  # torch.nn.functional's
        del kwargs["inplace"]
    for each in (*args, *kwargs.values()):
        if isinstance(each, torch.Tensor) and each.numel() != 1:
            raise EngineError(
                f"rule {rule!r}: a constant of {each.numel()} numbers in {name!r} cannot be compiled; one number "
                'expected; engine "eager" runs any'
            )
    if name == "where" and node.op == "call_method":
        args[:2] = args[1::-1]  # x.where(condition, y)
    if name in (*CONSTANT, "to", "float", "double"):
        kwargs, args = {}, args[: 2 if name == "full_like" else 1]
    if name == "clamp":
        low, high = (*args[1:], None, None)[:2]
        low, high = kwargs.get("min", low), kwargs.get("max", high)
        text = value(args[0], True)
        text = text if low is None else f"at_least_({text}, {value(low, True)})"
        return text if high is None else f"at_most_({text}, {value(high, True)})"
    if name == "pow" and isinstance(args[1], (int, float)) and args[1] in POWERS:
        return POWERS[args[1]].replace("{0}", value(args[0], True))
    factor: Any = kwargs.pop("value", kwargs.pop("alpha", 1))
    if factor != 1 and name in ("add", "sub") and not kwargs:  # fused, as in torch
        sign = 1 if name == "add" else -1
        return f"fma_({value(sign * factor, True)}, {value(args[1], True)}, {value(args[0], True)})"
    if factor != 1 and name in ("addcmul", "addcdiv"):
        args[1] = f"({value(factor)} * {value(args[1])})"
        factor = 1
    places = [int(place) + 1 for place in re.findall(r"{(\d)}", OPERATIONS.get(name, ""))]
    if name not in OPERATIONS or kwargs or factor != 1 or len(args) != max(places, default=1):
        what = f"{name}({', '.join(map(str, kwargs or args))})" if name in (*OPERATIONS, "pow") else name
        raise EngineError(
            f'rule {rule!r}: operation {what!r} cannot be compiled; engine "eager" runs any. Allowed: {ALLOWED}'
        )
    text = OPERATIONS[name]
    for number, each in enumerate(args):
        for mark, wide in ((f"#{{{number}}}", True), (f"{{{number}}}", False)):
            if mark in text:
                text = text.replace(mark, each if isinstance(each, str) else value(each, wide))
    return text


def _name(node: fx.Node) -> str:
    """The name of an operation in OPERATIONS, for a function, an operator or a method."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return SAME.get(name, name)
