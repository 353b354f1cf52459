"""Program: the C++ text of a kernel: constants, translated rules, and the sources of kernel/ that use them.

It is made for a Key and a Layout: all that a compiler can know. What differs between networks or calls is in the Job.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch

from ..errors import EngineError
from ..maths.activations import ACTIVATIONS
from ..maths.optimizers import rates
from ..maths.schedules import scheduled
from . import rules
from .constants import SWITCHES, constants, structs
from .job import JOB, declared, structure
from .key import Key
from .layout import Layout
from .plan import Needs, Plan
from .translate import depends, lines, trace, value

STEP, TOTAL, BEFORE = "0step", "0total", "0before_"  # no rule's name begins with a digit


class Program:
    """The text of the kernel for `key` in a layout."""

    def __init__(self, key: Key, layout: Layout) -> None:
        self.key, self.layout = key, layout
        self.spec, self.recipe, self.dtype = key.spec, key.recipe, key.dtype
        self.names = [name for name in key.recipe.read if name != "class_weight"]

    def laid_out(self, layout: Layout) -> Self:
        """The same in another layout, with the rules traced once for all of them."""
        _ = self.needs
        other = copy.copy(self)
        other.layout = layout
        for name in ("text", "plan"):
            other.__dict__.pop(name, None)
        return other

    def identity(self, machine: str) -> tuple[Any, ...]:
        """Everything that the text depends on; for the package's rules, the functions themselves."""
        rows, key = rules.rows(self.spec, self.recipe), self.key._replace(networks=1, threads=1)
        found = (key, self.layout, *self._facts, machine)
        return found if rules.built_in(rows) else (*found, self.text)

    @property
    def _facts(self) -> tuple[Any, ...]:
        rule, loss = self.recipe.rule, self.key.loss
        functions = rules.functions(rules.rows(self.spec, self.recipe))
        return functions, loss.outputs, loss.metric, loss.classes, rule.decoupled, rule.absorbing

    def sized(self, known: dict[tuple[Any, ...], Self]) -> Self:
        """The same; for a general kernel, with the rules traced once for all programs with its text, in `known`."""
        if not self.layout.general or not rules.built_in(rules.rows(self.spec, self.recipe)):
            return self
        spec, recipe, layout = self.spec, replace(self.recipe, batch_size=1), replace(self.layout, chunk=0)
        of_spec = (*dict.fromkeys(spec.activations), spec.output, spec.loss, spec.bias, spec.train_bias)
        identity = (self.key._replace(recipe=recipe, networks=1, threads=1)[1:], of_spec, layout, *self._facts)
        first = known.setdefault(identity, self)
        _ = first.text
        other = copy.copy(first)
        other.key, other.layout, other.spec, other.recipe = self.key, self.layout, spec, self.recipe
        other.__dict__.pop("plan", None)
        return other

    @cached_property
    def text(self) -> str:
        """The whole translation unit, without the entry that a machine adds."""
        functions = [*self.activations(), *self.loss(), *self.expected()]
        if self.key.trains:
            functions += [*self.prepare(), *self.optimizer()]
        types = [*structs(self.plan), *declared(JOB)]
        return "\n".join([*constants(self.plan), '#include "machine.h"', *types, *functions, ""])

    @cached_property
    def plan(self) -> Plan:
        """Where the kernel keeps its numbers."""
        return Plan(self.key, self.layout, self.needs)

    @cached_property
    def needs(self) -> Needs:
        """What the rules need of the kernel."""
        return Needs(
            hyper=tuple(self.hyper),
            coefficients=len(self.coefficients),
            nets=self.key.trains and any(depends(slope, ["net"]) for _, _, _, slope in self.traced.values()),
            inverse_link=self.key.loss.metric == "r2" and value(self.link[1]) != "_out",
            coefficients_change=bool(self.recipe.rule.columns) or self.depends([STEP]),
            coefficients_use_step=self.depends([STEP, TOTAL]),
        )

    @property
    def job(self) -> Any:
        """The type of the Job that a call gives the kernel."""
        rule = self.recipe.rule
        counts = ("SLOTS", len(rule.slots)), ("HYPERS", len(self.hyper)), ("NETWORK_SLOTS", len(rule.columns))
        return structure(JOB, counts)

    @cached_property
    def hyper(self) -> list[str]:
        """The hyper-parameters that the kernel reads, in its order."""
        graph_results = [each for part in self.prepared[1:] for each in part.values()]
        elsewhere = {*SWITCHES, *self.key.loss.defaults}
        return [n for n in self.names if n in elsewhere or any(depends(each, [n]) for each in graph_results)]

    # ---- the rules

    @cached_property
    def traced(self) -> dict[str, tuple[Any, Any, Any, Any]]:
        """For every activation in use: graph and result of its value, graph and result of its slope."""
        return {
            name: (*trace(ACTIVATIONS[name].value, ["net"]), *trace(ACTIVATIONS[name].slope, ["net", "out"]))
            for name in dict.fromkeys(self.spec.activations)
        }

    def function(self, head: str, rule: str, graph: Any, result: Any, known: Sequence[str] = ()) -> list[str]:
        """A rule as a function, after lines that define what is `known`."""
        body = [*known, *lines(rule, graph, [result], self.dtype), f"  return {value(result, True)};"]
        return [f"{head} {{", "  typedef element<V> T;", *body, "}"]

    def activations(self) -> list[str]:
        """value<layer> and slope<layer>."""
        text, used = [], list(self.traced)
        for number, name in enumerate(used):
            graph, result, slope_graph, slope = self.traced[name]
            text += [
                f"// {name!r}",
                *self.function(f"template <class V> FN V value_{number}(V _net)", name, graph, result),
                *self.function(f"template <class V> FN V slope_{number}(V _net, V _out)", name, slope_graph, slope),
            ]
        for what, names in (("value", "net"), ("slope", "net, out")):
            arguments = ", ".join(f"V {name}" for name in names.split(", "))
            text += [f"template <class L, class V> FN V {what}(L l, {arguments}) {{"]
            if self.layout.general:
                text += [f"  if (ACTIVATION[l] == {k}) return {what}_{k}({names});" for k in range(1, len(used))]
                text.append(f"  return {what}_0({names});")
            else:
                for layer, name in enumerate(self.spec.activations):
                    text.append(f"  if constexpr (L::value == {layer}) return {what}_{used.index(name)}({names});")
            text.append("}")
        return text

    def loss(self) -> list[str]:
        """loss_value and loss_slope of one output; loss.h has the loss of classes."""
        rule = self.key.loss
        if rule.classes:
            if rules.custom((rule.value,)):
                raise EngineError(
                    f"loss {self.spec.loss!r}: of the losses of classes the compiled kernel has cross_entropy alone; "
                    'engine "eager" runs any'
                )
            return []
        names = [name for name in rule.defaults if name in self.hyper]
        text = [f"// {self.spec.loss!r}"]
        for what, function in (("value", rule.value), ("slope", rule.slope)):
            assert function is not None

            def named(out: Any, target: Any, *hyper: Any, function: Any = function) -> Any:
                return function(out, target, **dict(zip(names, hyper)))

            named.__name__ = getattr(function, "__name__", str(self.spec.loss))  # the rule's name in a refusal
            graph, result = trace(named, ["out", "target", *names])
            head = f"template <class V, class H> FN V loss_{what}(V _out, V _target, H hyper)"
            known = [f"  const V _{name} = hyper({self.hyper.index(name)});" for name in names]
            text += self.function(head, self.spec.loss, graph, result, known)
        return text

    @cached_property
    def link(self) -> tuple[Any, Any]:
        """Graph and result of the inverse link: the expected target, from an out."""
        return trace(self.key.loss.inverse_link, ["out"])

    def expected(self) -> list[str]:
        """The expected target, only for R2; in training kernels too, so that an inverse link that cannot be translated
        is refused before training."""
        if self.key.loss.metric != "r2":
            return []
        return self.function("template <class V> FN V expected(V _out)", self.spec.loss, *self.link)

    @cached_property
    def prepared(self) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """The graph of a step's coefficients; these by name (direction, decay, the rule's arguments); columns after."""
        rule, columns = self.recipe.rule, self.recipe.rule.columns
        if not self.key.trains:
            return None, {}, {}

        def of_step(step: Any, total: Any, *rest: Any) -> Any:
            hyper, before = dict(zip(self.names, rest)), dict(zip(columns, rest[len(self.names) :]))
            lr = scheduled(self.recipe.timetable, hyper, step, total)
            found, after = rates(rule, hyper, before, lr, torch.float64)  # update.h rounds them
            known = {"direction": found.direction, **dict(found.arguments)}
            return known if found.decay is None else {**known, "decay": found.decay}, after

        names = [STEP, TOTAL, *self.names, *(BEFORE + name for name in columns)]
        of_step.__name__ = f"{self.recipe.optimizer}, {self.recipe.schedule}"
        graph, (known, after) = trace(of_step, names)
        return graph, known, after

    @property
    def coefficients(self) -> list[str]:
        """The coefficients of a step's update, in the kernel's order."""
        return list(self.prepared[1])

    def depends(self, on: Sequence[str]) -> bool:
        """Whether any coefficient is computed from one of `on`."""
        return any(depends(each, on) for each in self.prepared[1].values())

    def prepare(self) -> list[str]:
        """The coefficients of a step from hyper-parameters and columns."""
        graph, known, after = self.prepared
        rule = f"{self.recipe.optimizer}, {self.recipe.schedule}"
        return [
            f"// {rule!r}",
            "template <class V>",
            f"FN void prepare(const V *hyper, V *network_slots, V _{STEP}, V _{TOTAL}, V *coefficient) {{",
            "  typedef element<V> T;",
            *(f"  const V _{name} = hyper[{number}];" for number, name in enumerate(self.hyper)),
            *(f"  const V _{BEFORE}{name} = network_slots[{number}];" for number, name in enumerate(after)),
            *lines(rule, graph, [*known.values(), *after.values()], torch.float64),
            *(f"  coefficient[{number}] = {value(each, True)};" for number, each in enumerate(known.values())),
            *(f"  network_slots[{number}] = {value(each, True)};" for number, each in enumerate(after.values())),
            "}",
        ]

    def optimizer(self) -> list[str]:
        """optimizers.update, decay and learning rate around the rule's direction."""
        rule, names = self.recipe.rule, list(self.recipe.rule.arguments)
        graph, result = trace(rule.direction, ["grad", *rule.slots, *names])
        direction, *after = result if isinstance(result, tuple) else (result,)
        decay = "decay" in self.coefficients and f"coefficient({self.coefficients.index('decay')})"
        shrink = [f"  param = param * {decay};"] if decay and rule.decoupled else []
        added = [f"  _grad = fma_({decay}, param, _grad);"] if decay and not rule.decoupled else []
        return [
            "template <class V, class R> FN void optimizer(V &param, V _grad, V *slots, R coefficient) {",
            "  typedef element<V> T;",
            *shrink, *added,
            *(f"  const V _{name} = slots[{number}];" for number, name in enumerate(rule.slots)),
            *(f"  const V _{name} = coefficient({self.coefficients.index(name)});" for name in names),
            *lines(self.recipe.optimizer, graph, [direction, *after], self.dtype),
            *(f"  slots[{number}] = {value(each, True)};" for number, each in enumerate(after)),
            f"  param = fma_(-coefficient(0), {value(direction, True)}, param);",
            "}",
        ]  # fmt: skip
