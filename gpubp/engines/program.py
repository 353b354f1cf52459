"""Program: the C++ text of a kernel: constants, the rules translated, and the sources of kernel/ that use them.

A program is made for a topology, its rules, a batch size, what is switched on, and how the data lie: all that a
compiler can know. What differs between networks or calls it is given at run time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..activations import ACTIVATIONS
from ..errors import EngineError
from ..losses import LOSSES, cross_entropy, same
from ..optimizers import rates
from ..recipe import Recipe
from ..schedules import scheduled
from ..spec import BIASES, NetworkSpec
from .layout import Layout
from .plan import Plan
from .translate import depends, lines, trace, value

REALS = {torch.float32: "float", torch.float64: "double"}
SWITCHES = ("l1", "l2", "clip_value", "clip_norm", "dropout", "label_smoothing")  # -1 in the kernel where they are off
STEP, TOTAL, BEFORE = "0step", "0total", "0before_"  # no name of a rule begins so
SHUFFLES = {"none": 0, "network": 1, "shared": 2}
TASKS = ("train", "evaluate")
METRICS = ("r2", "classes", "sign")


@dataclass(frozen=True)
class Samples:
    """What a kernel is told about its data.

    own: each network sees other samples than its neighbours, or stands at another step. rows: index tensors say which.
    inputs: every network has inputs of its own. weight: none (0), shared (1), each network's (2). shuffle: as config.
    """

    own: bool
    rows: bool
    inputs: bool
    weight: int
    shuffle: str


class Program:
    """The text for one specification, recipe, data and layout.

    task: to train, or to evaluate, which gives loss and metric.
    """

    def __init__(
        self, spec: NetworkSpec, recipe: Recipe, dtype: torch.dtype, samples: Samples, layout: Layout,
        task: str = "train",
    ) -> None:  # fmt: skip
        self.spec, self.recipe, self.dtype, self.task = spec, recipe, dtype, task
        self.samples, self.layout = samples, layout
        self.names = [name for name in recipe.read if name != "class_weight"]
        self.class_weight = "class_weight" in recipe.hyper

    def laid_out(self, layout: Layout) -> Program:
        """The same in another layout."""
        other = copy.copy(self)
        other.layout = layout
        for name in ("text", "plan"):
            other.__dict__.pop(name, None)
        return other

    @property
    def batch(self) -> int:
        """Samples of a step; of networks that do not learn, those that go through them at once."""
        batch = self.recipe.batch_size
        return batch if self.task == "train" else self.layout.chunk or batch

    @property
    def metric(self) -> str:
        """What an evaluation reports beside the loss: one of METRICS."""
        return LOSSES[self.spec.loss].metric

    @property
    def classes(self) -> bool:
        """Whether a target is the number of a class."""
        return LOSSES[self.spec.loss].classes

    @cached_property
    def hyper(self) -> list[str]:
        """The hyper-parameters that the kernel reads, in its order."""
        graph_results = [each for part in self.prepared[1:] for each in part.values()]
        elsewhere = {*SWITCHES, *LOSSES[self.spec.loss].defaults}
        return [n for n in self.names if n in elsewhere or any(depends(each, [n]) for each in graph_results)]

    @cached_property
    def text(self) -> str:
        """The whole translation unit, without the entry that a machine adds."""
        rules = [*self.activations(), *self.loss(), *self.expected()]
        if self.task == "train":
            rules += [*self.prepare(), *self.update()]
        machine = f'#include "machines/{self.layout.machine}.h"'
        return "\n".join([*self.constants(), *self.plan.constants(), machine, *self.plan.structs(), *rules, ""])

    @cached_property
    def plan(self) -> Plan:
        """Where the kernel keeps its numbers."""
        given = {name: value for name, value, _ in self.given()}
        return Plan(self.spec.widths, self.layout, self.dtype.itemsize, given)

    def at(self, name: str) -> int:
        """The number of a hyper-parameter in the kernel; -1 where it is off."""
        return self.hyper.index(name) if name in self.hyper else -1

    def given(self) -> list[tuple[str, int, str]]:
        """What the sources of kernel/ are compiled for: name, value and what it says."""
        spec, rule, layout, samples = self.spec, LOSSES[self.spec.loss], self.layout, self.samples
        apart = layout.networks if samples.own else 1
        return [
            ("TASK", TASKS.index(self.task), "TRAIN or EVALUATE"),
            ("LAYERS", len(spec.widths) - 1, "with weights"),
            ("BATCH", self.batch, "samples of a step"),
            ("CHUNK", layout.chunk or self.batch, "of them that go through the network at once"),
            ("BIAS", BIASES.index(spec.bias), ", ".join(f"{number} {name}" for number, name in enumerate(BIASES))),
            ("TRAIN_BIAS", spec.train_bias and spec.bias != "none", "whether biases change"),
            ("CLASSES", self.classes, "whether a target is the number of a class"),
            ("LOSS_SUM", rule.outputs == "sum", "whether a sample's loss is the sum over its outputs, not their mean"),
            ("METRIC", METRICS.index(self.metric),
             ", ".join(f"{number} {name}" for number, name in enumerate(METRICS))),
            ("HAS_INVERSE_LINK", rule.inverse_link is not same, "whether the prediction is a function of the out"),
            ("OUTPUT_IDENTITY", spec.output == "identity", "whether the last layer's slope is 1"),
            ("KEEP_NETS", self.keep_nets, "whether a slope is a function of the net, not of the out alone"),
            ("OWN_SAMPLES", samples.own, "whether networks see different samples, or are at different steps"),
            ("ORDERS", apart, "in which a group takes its samples: one for all its networks, or one for each"),
            ("GATHER", apart > 1 or layout.machine == "gpu_block",
             "whether a chunk's samples are copied to Memory, or products read them where they are"),
            ("ROWS", samples.rows, "whether index tensors say which samples a network has"),
            ("OWN_INPUTS", samples.inputs, "whether every network has inputs and targets of its own"),
            ("SAMPLE_WEIGHT", samples.weight, "0 none, 1 shared, 2 each network's"),
            ("SHUFFLE", SHUFFLES[samples.shuffle], ", ".join(f"{number} {name}" for name, number in SHUFFLES.items())),
            ("CLASS_WEIGHT", self.class_weight, "whether classes have weights"),
            ("LAYERWISE", self.recipe.update_order == "layerwise", "whether a layer changes before the delta below it"),
            *((name.upper(), self.at(name), "which hyper-parameter it is; -1 if it is off") for name in SWITCHES),
            ("NONFINITE_STAYS", self.recipe.rule.absorbing, "whether NaN or infinity, once in a row, stays in it"),
            ("HYPERS", len(self.hyper), "hyper-parameters that the kernel reads"),
            ("SLOTS", len(self.recipe.rule.slots), "of the optimizer: numbers that it keeps for each parameter"),
            ("COLUMNS", len(self.recipe.rule.columns), "numbers that it keeps for each network"),
            ("RATES", len(self.rates), "numbers of a step that its update takes, the learning rate first"),
            ("RATES_CHANGE", self.moving, "whether they, or columns, change from step to step"),
            ("RATES_USE_STEP", self.depends([STEP, TOTAL]), "whether they depend on the number of the step"),
        ]  # fmt: skip

    def constants(self) -> list[str]:
        """What the sources of kernel/ are compiled for, as text."""
        layout = self.layout
        macros = [
            *((name.upper(), number, "a TASK") for number, name in enumerate(TASKS)),
            ("REAL", REALS[self.dtype], "the type of parameters, samples and all that is computed from them"),
            ("VECTOR", layout.vector, "numbers in a register"),
            ("REGISTERS_PER_V", layout.parts, "registers that make a v"),
            ("LANES_ARE_OUTPUTS", int(layout.wide), "whether a v is outputs of one network, or one of each"),
            ("TEAM", int(layout.team), "whether several threads train one network together"),
            ("THREADS", layout.threads, "on a GPU: of a team, or of a block without teams; 0 on a CPU"),
            ("TEAMS_PER_BLOCK", layout.together, "with a network each, on a GPU; 1 without teams"),
            ("SLOTS_IN_GLOBAL", int(not layout.near), "whether slots are in a GPU's global memory, not beside params"),
        ]
        task, *given = self.given()
        return [
            *(f"#define {name} {each}  // {what}" for name, each, what in [*macros, task]),
            *(f"constexpr int {name} = {int(each)};  // {what}" for name, each, what in given),
        ]

    # ---- the rules

    @cached_property
    def traced(self) -> dict[str, tuple[Any, Any, Any, Any]]:
        """Of every activation in use: graph and result of its value and of its slope."""
        return {
            name: (*trace(ACTIVATIONS[name].value, ["net"]), *trace(ACTIVATIONS[name].slope, ["net", "out"]))
            for name in dict.fromkeys(self.spec.activations)
        }

    @property
    def keep_nets(self) -> bool:
        """Whether some slope, where there are any, needs the net, not the out alone."""
        return self.task == "train" and any(depends(slope, ["net"]) for _, _, _, slope in self.traced.values())

    def activations(self) -> list[str]:
        """value<layer> and slope<layer>."""
        text, used = [], list(self.traced)
        for number, name in enumerate(used):
            graph, result, slope_graph, slope = self.traced[name]
            text += [
                f"// {name!r}", f"template <class V> FN V value_{number}(V _net) {{", "  typedef element<V> T;",
                *lines(name, graph, [result], self.dtype), f"  return {value(result, True)};", "}",
                f"template <class V> FN V slope_{number}(V _net, V _out) {{", "  typedef element<V> T;",
                *lines(name, slope_graph, [slope], self.dtype), f"  return {value(slope, True)};", "}",
            ]  # fmt: skip
        for what, names in (("value", "net"), ("slope", "net, out")):
            arguments = ", ".join(f"v {name}" for name in names.split(", "))
            text += [f"template <int l> FN v {what}({arguments}) {{"]
            for layer, name in enumerate(self.spec.activations):
                text.append(f"  if constexpr (l == {layer}) return {what}_{used.index(name)}<v>({names});")
            text.append("}")
        return text

    def loss(self) -> list[str]:
        """loss_value and loss_slope of one output; those of classes are in loss.h."""
        rule = LOSSES[self.spec.loss]
        if rule.classes:
            if rule.value is not cross_entropy:
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

            named.__name__ = getattr(function, "__name__", str(self.spec.loss))  # what a refusal calls the rule
            graph, result = trace(named, ["out", "target", *names])
            text += [
                f"template <class V, class H> FN V loss_{what}(V _out, V _target, H hyper) {{",
                "  typedef element<V> T;",
                *(f"  const V _{name} = hyper({self.at(name)});" for name in names),
                *lines(self.spec.loss, graph, [result], self.dtype), f"  return {value(result, True)};", "}",
            ]  # fmt: skip
        return text

    def expected(self) -> list[str]:
        """What a network expects of the target, from an out: of R2 alone. It is here for a training too, so that what
        cannot be translated is refused before it."""
        if self.metric != "r2":
            return []
        graph, result = trace(LOSSES[self.spec.loss].inverse_link, ["out"])
        of_rule = lines(self.spec.loss, graph, [result], self.dtype)
        begin = ["template <class V> FN V expected(V _out) {", "  typedef element<V> T;"]
        return [*begin, *of_rule, f"  return {value(result, True)};", "}"]

    @cached_property
    def prepared(self) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Graph of a step's rates; the rates by name: direction, decay, the rule's arguments; the columns after it."""
        rule, columns = self.recipe.rule, self.recipe.rule.columns
        if self.task != "train":
            return None, {}, {}

        def of_step(step: Any, total: Any, *rest: Any) -> Any:
            hyper, own = dict(zip(self.names, rest)), dict(zip(columns, rest[len(self.names) :]))
            lr = scheduled(self.recipe.timetable, hyper, step, total)
            found, after = rates(rule, hyper, own, lr, torch.float64)  # update.h rounds them
            known = {"direction": found.direction, **dict(found.arguments)}
            return known if found.decay is None else {**known, "decay": found.decay}, after

        names = [STEP, TOTAL, *self.names, *(BEFORE + name for name in columns)]
        of_step.__name__ = f"{self.recipe.optimizer}, {self.recipe.schedule}"
        graph, (known, after) = trace(of_step, names)
        return graph, known, after

    @property
    def rates(self) -> list[str]:
        """What a step's update takes, in the kernel's order."""
        return list(self.prepared[1])

    @property
    def moving(self) -> bool:
        """Whether something must be computed at every step: rates that change, or columns."""
        return bool(self.recipe.rule.columns) or self.depends([STEP])

    def depends(self, on: Sequence[str]) -> bool:
        """Whether some rate is computed from one of `on`."""
        return any(depends(each, on) for each in self.prepared[1].values())

    def prepare(self) -> list[str]:
        """The rates of a step from hyper-parameters and columns."""
        graph, known, after = self.prepared
        rule = f"{self.recipe.optimizer}, {self.recipe.schedule}"
        return [
            f"// {rule!r}",
            f"template <class V> FN void prepare(const V *hyper, V *columns, V _{STEP}, V _{TOTAL}, V *rate) {{",
            "  typedef element<V> T;",
            *(f"  const V _{name} = hyper[{number}];" for number, name in enumerate(self.hyper)),
            *(f"  const V _{BEFORE}{name} = columns[{number}];" for number, name in enumerate(after)),
            *lines(rule, graph, [*known.values(), *after.values()], torch.float64),
            *(f"  rate[{number}] = {value(each, True)};" for number, each in enumerate(known.values())),
            *(f"  columns[{number}] = {value(each, True)};" for number, each in enumerate(after.values())),
            "}",
        ]

    def update(self) -> list[str]:
        """optimizers.update, decay and learning rate around the rule's direction."""
        rule, names = self.recipe.rule, list(self.recipe.rule.arguments)
        graph, result = trace(rule.direction, ["grad", *rule.slots, *names])
        direction, *after = result if isinstance(result, tuple) else (result,)
        decay = "decay" in self.rates and f"rate({self.rates.index('decay')})"
        shrink = [f"  param = param * {decay};"] if decay and rule.decoupled else []
        added = [f"  _grad = fma_({decay}, param, _grad);"] if decay and not rule.decoupled else []
        return [
            "template <class V, class R> FN void update(V &param, V _grad, V *slots, R rate) {",
            "  typedef element<V> T;",
            *shrink, *added,
            *(f"  const V _{name} = slots[{number}];" for number, name in enumerate(rule.slots)),
            *(f"  const V _{name} = rate({self.rates.index(name)});" for name in names),
            *lines(self.recipe.optimizer, graph, [direction, *after], self.dtype),
            *(f"  slots[{number}] = {value(each, True)};" for number, each in enumerate(after)),
            f"  param = fma_(-rate(0), {value(direction, True)}, param);",
            "}",
        ]  # fmt: skip
