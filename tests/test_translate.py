"""Rules in C++ compute what torch computes: every operation of translate.py in every form, in one library, for floats
and doubles, numbers and vectors; and what cannot be translated is refused by the name of rule and operation."""

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gpubp.engines import build, translate
from gpubp.engines.constants import REALS
from gpubp.errors import EngineError

from .helpers import needs_compiler
from .translated import EITHER_ZERO, EXACT, INF, NAN, ROUNDED, RULES, SUMS, Rule, parsed

SPECIAL = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 9.3, 88.8, 1e3, 2.0**23 + 1, 1e9, 1e-3, 1e-30, 1e-40, 3e38, INF, NAN]
KINDS = [(dtype, many) for dtype in REALS for many in (False, True)]


def lanes(dtype: torch.dtype, many: bool) -> int:
    return build.vector_bytes() // dtype.itemsize if many else 1


def source(rules: list[tuple[str, Rule]], *names: str, dtypes: Sequence[torch.dtype] = tuple(REALS)) -> str:
    """Every rule as a function over arrays, for every kind of lanes."""
    text = ["#define REAL float", f"#define VECTOR {lanes(torch.float32, True)}", '#include "arithmetic.h"']
    arguments = ", ".join(f"V _{name}" for name in names)
    for number, (name, rule) in enumerate(rules):
        graph, result = translate.trace(rule, names)
        for dtype in dtypes:
            body = translate.lines(name, graph, [result], dtype)
        text += [f"template <class V> FN V rule_{number}({arguments}) {{", "  typedef element<V> T;", *body,
                 f"  return {translate.value(result, True)};", "}"]  # fmt: skip
        for dtype, many in [kind for kind in KINDS if kind[0] in dtypes]:
            real, n = REALS[dtype], lanes(dtype, many)
            given = ", ".join(f"load<vec<{real}, {n}>>(in + {at} * count + i)" for at in range(len(names)))
            text.append(
                f'extern "C" __attribute__((visibility("default"))) void run_{number}_{real}_{int(many)}(const {real} '
                f"*in, {real} *out, long count) {{ for (long i = 0; i < count; i += {n}) "
                f"store<vec<{real}, {n}>>(out + i, rule_{number}<vec<{real}, {n}>>({given})); }}"
            )
    return "\n".join([*text, ""])


@pytest.fixture(scope="module")
def compiled() -> ctypes.CDLL:
    needs_compiler()
    return build.library(source(RULES, "a", "b", "c"))


def computed(library: ctypes.CDLL, number: int, given: Tensor, many: bool) -> Tensor:
    """Rule `number` of the arguments `given` (A, count)."""
    out = given.new_empty(given.shape[1])
    pointers = [ctypes.c_void_p(each.data_ptr()) for each in (given, out)]
    getattr(library, f"run_{number}_{REALS[given.dtype]}_{int(many)}")(*pointers, ctypes.c_long(given.shape[1]))
    return out


def numbers(dtype: torch.dtype) -> Tensor:
    """(3, count): every pair of special numbers with either sign, and random ones; count suits any vector."""
    special = [sign * each for each in SPECIAL for sign in (1, -1)]
    pairs = torch.tensor(list(itertools.product(special, special)), dtype=torch.float64).T
    third = pairs[0].flip(0).nan_to_num(7.0)
    random = torch.randn(3, 3056, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    both = torch.cat([torch.cat([pairs, third[None]]), random], 1)
    return both[:, : both.shape[1] // 16 * 16].to(dtype).contiguous()


def wrong(got: Tensor, expected: Tensor, allowed: Tensor | float = 0.0) -> Tensor:
    """(count,) bool; NaN equals NaN, infinity itself."""
    same = (got == expected) | (got.isnan() & expected.isnan())
    return ~(same | ((got.double() - expected.double()).abs() <= allowed))


def told(name: str, given: Tensor, bad: Tensor, got: Tensor, expected: Tensor) -> str:
    return f"{name}{tuple(given[:, bad][:, 0].tolist())}: {got[bad][0]}, torch has {expected[bad][0]}"


@pytest.mark.parametrize(("dtype", "many"), KINDS)
def test_arithmetic_is_exactly_torchs(compiled: ctypes.CDLL, dtype: torch.dtype, many: bool) -> None:
    given = numbers(dtype)
    for number, (name, rule) in enumerate(EXACT.items()):
        expected = torch.as_tensor(rule(*given.clone())).to(dtype).expand(given.shape[1])
        got = computed(compiled, number, given, many)
        bad = wrong(got, expected)
        if name not in EITHER_ZERO:
            bad |= (got.signbit() != expected.signbit()) & ~got.isnan()
        assert not bad.any(), told(name, given, bad, got, expected)


@pytest.mark.parametrize(("dtype", "many"), KINDS)
def test_functions_are_within_four_ulps_of_torchs(compiled: ctypes.CDLL, dtype: torch.dtype, many: bool) -> None:
    given, info = numbers(dtype), torch.finfo(dtype)
    for number, (name, rule) in enumerate(ROUNDED.items(), start=len(EXACT)):
        exact = rule(*given.double())
        expected = exact.to(dtype)
        got = computed(compiled, number, given, many)
        bad = wrong(got, expected, torch.clamp(4 * info.eps * exact.abs(), min=info.smallest_normal))
        assert not bad.any(), told(name, given, bad, got, expected)


@pytest.mark.parametrize(("dtype", "many"), KINDS)
def test_fused_sums_are_torchs_but_for_rounding(compiled: ctypes.CDLL, dtype: torch.dtype, many: bool) -> None:
    size = torch.rand(3, 512, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 9 + 1
    given = (size * torch.tensor([1.0, -1.0]).repeat(256)).to(dtype)
    for number, (name, rule) in enumerate(SUMS.items(), start=len(EXACT) + len(ROUNDED)):
        expected = rule(*given.double())
        got = computed(compiled, number, given, many)
        bad = wrong(got, expected, 400 * torch.finfo(dtype).eps)  # terms up to 200, two roundings
        assert not bad.any(), told(name, given, bad, got, expected)


def test_every_operation_is_tried() -> None:
    tried = set()
    for _, rule in RULES:
        graph, _ = translate.trace(rule, ["a", "b", "c"])
        tried |= {translate._name(node) for node in graph.nodes if node.op != "placeholder"}
    expected = {*translate.OPERATIONS, "clamp", "pow"} - {"double"}  # as "float"
    assert tried >= expected, expected - tried


def refused(text: str, *words: str, dtype: torch.dtype = torch.float32) -> None:
    wrong = parsed(text, "a, b")
    wrong.__name__ = "gurgle"
    with pytest.raises(EngineError) as caught:
        source([("gurgle", wrong)], "a", "b", dtypes=[dtype])
    for word in ("'gurgle'", *words):
        assert word in str(caught.value)


UNKNOWN = {  # operations, and how rules ask for them
    "softplus": ["functional.softplus(a)"], "cumsum": ["torch.cumsum(a, 0)"], "sum": ["a.sum()"],
    "erfc": ["torch.erfc(a)"], "mod": ["a % 2"], "floordiv": ["a // 2"], "and_": ["(a > 0) & (b > 0)"],
    "invert": ["~(a > 0)"], "add_": ["a.add_(b)"], "getitem": ["a[0]"], "matmul": ["a @ b"],
    "getattr": ["a * a.shape[0]", "a * a.shape[2]", "a * (1 / (b.ndim - 1))"], "pow": ["a**1.7", "a**b", "2**a"],
    "div(rounding_mode)": ['torch.div(a, b, rounding_mode="floor")'], "exp(out)": ["torch.exp(a, out=b)"],
    "maximum(_a)": ["torch.max(a)"], "maximum(_a, 0, True)": ["a.max(0, True)"], "where(": ["torch.where(a > 0)"],
}  # fmt: skip


@pytest.mark.parametrize(("operation", "text"), [(name, each) for name, texts in UNKNOWN.items() for each in texts])
def test_an_operation_that_is_not_in_the_table_is_refused_by_name(operation: str, text: str) -> None:
    advice = 'cannot be compiled; engine "eager" runs any. Allowed: arithmetic, comparisons, abs, '
    refused(text, f"operation '{operation}", advice)


@pytest.mark.parametrize(
    "text",
    ["a if a > 0 else b", "max(a, b)", "sum(x for x in a)", "a * len(b)", "math.exp(a)", "a * float(b)", "a > 0 and b",
     "{1: a}[b.ndim]"],
)  # fmt: skip
def test_control_flow_and_what_is_no_arithmetic_are_refused_with_advice(text: str) -> None:
    refused(text, "only arithmetic can, without Python control flow on numbers", 'engine "eager" runs it')


SINGLE, DOUBLE = REALS
OTHERS = {  # of networks in a type, what torch computes in another one
    (DOUBLE, "'where' in torch.float32"): ["torch.where(a > 0, 1.5, 0.1) * b", "torch.where(a > 0, 1, 0.1)"],
    (DOUBLE, "'mul' in torch.float32"): ["(a > 0) * 0.1 * b", "(a > 0).float() * 0.1"],
    (DOUBLE, "'truediv' in torch.float32"): ["(a > 0) * 2 / 3 * b"],
    (DOUBLE, "'exp' in torch.float32"): ["torch.exp(a > 0) * b"],
    (DOUBLE, "'clamp' in torch.float32"): ["torch.clamp(a > 0, min=0.1) * b"],
    (DOUBLE, "'float' in torch.float32"): ["a.float() * b"],
    (DOUBLE, "'full_like' in torch.float32"): ["torch.full_like(a, 0.1, dtype=torch.float32)"],
    (SINGLE, "'double' in torch.float64"): ["a.double()"],
    (SINGLE, "'to' in torch.float64"): ["a.to(torch.float64)"],
    (SINGLE, "'mul' in torch.float64"): ["a * torch.tensor([0.1], dtype=torch.float64)"],
}
for number in REALS:
    OTHERS |= {
        (number, "'to' in torch.int64"): ["a.to(torch.int64)"],
        (number, "'to' in torch.bool"): ["a.to(dtype=torch.bool)", "a.type_as(b > 0)"],
        (number, "'to' in torch.float16"): ["a.to(torch.float16)"],
        (number, "'add' in torch.bool"): ["((a > 0) + (b > 0)) * a"],
        (number, "'full_like' in torch.bool"): ["torch.full_like(a > 0, 0.5) * b"],
        (number, "'full_like' in torch.int64"): ["torch.full_like((a > 0) * 2, 0.5) * b"],
        (number, "'maximum' in <class"): ["torch.max(a, 0)"],
    }


@pytest.mark.parametrize(("of", "text"), [(of, each) for of, texts in OTHERS.items() for each in texts])
def test_what_torch_computes_in_another_type_is_refused(of: tuple[torch.dtype, str], text: str) -> None:
    dtype, found = of
    refused(text, f"torch computes {found}", f"the numbers are {dtype}", 'engine "eager" runs it', dtype=dtype)


def test_a_literal_in_float32_is_one_in_networks_of_float32(compiled: ctypes.CDLL) -> None:
    texts = "torch.where(a > 0, 1.5, 0.1)", "(a > 0) * 0.1", "(a > 0) * 2 / 3 * b"
    given = numbers(torch.float32)
    own = build.library(source([(text, parsed(text)) for text in texts], "a", "b", "c", dtypes=[torch.float32]))
    for number, text in enumerate(texts):
        assert not wrong(computed(own, number, given, True), parsed(text)(*given)).any(), text


def test_what_torch_itself_refuses_is_refused_in_its_words_and_a_constant_of_several_numbers() -> None:
    for text in ("1 - (a > 0)", "torch.lerp(a, b, a > 0)", "torch.add(a, b, alpha=b)", "torch.softmax(a, 2)"):
        refused(text, "torch itself refuses operation '")
    refused("a * torch.tensor([1.0, 2.0])", "a constant of 2 numbers in 'mul' cannot be compiled")


def test_a_rule_without_a_name_is_refused_as_well() -> None:
    class Ask:
        def __call__(self, a: Any, b: Any) -> Any:
            return a if a > b else b

    with pytest.raises(EngineError, match="Ask object"):
        translate.trace(Ask(), ["a", "b"])


def test_arguments_may_have_names_of_cpp_keywords_operations_and_each_other(compiled: ctypes.CDLL) -> None:
    names = ("float", "new", "add", "square", "T", "V", "exp", "of_add", "_add", "λ")

    def rule(*given: Any) -> Any:
        total = given[0]
        for each in given[1:]:
            total = torch.exp(torch.square(total * 0.1)) + each
        return total

    own = build.library(source([("words", rule)], *names))
    given = torch.randn(len(names), 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(computed(own, 0, given, True), rule(*given), rtol=1e-14, atol=0)


def test_only_what_a_result_needs_is_translated() -> None:
    def rule(a: Any, b: Any) -> Any:
        torch.cumsum(a, 0)
        return {"one": a * 2, "rest": [b, 3]}

    graph, result = translate.trace(rule, ["a", "b"])
    assert len(translate.lines("rule", graph, [result["one"], *result["rest"]], torch.float32)) == 1
    assert translate.value(result["rest"][1], True) == "splat<V>(T(3.0))"
