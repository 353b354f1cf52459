"""An ONNX file of one network, or of several together, from raw samples to labels and probabilities, or to numbers in
the units of the targets; for several, also Ensemble's measures of doubt.

Inputs are `numbers` (M, columns) in float64, NaN if missing, and `texts` (M, columns), "" if missing, with numbers
among them as raw/arrow.as_text() writes them, each with its columns in the order of training; or, without a
preparation, `inputs` (M, I). The inputs are prepared in float64, the networks compute in their own precision, `net`'s
functions by the operators of ONNX, and outputs are float64. Networks of one topology are computed together, their
weights stacked (K, I, O).

Refused: files of more than 2 GB, which protobuf cannot hold, and activations without a row in onnx_graph.FUNCTIONS.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..system import files
from .members import Array, Group, Members
from .onnx_graph import FUNCTIONS, LINKS, Graph, needed

OPSET, IR = 19, 9  # Equal for texts needs them
MOST = 2**31 - 1  # bytes of a message
TINY = float(np.finfo(np.float64).tiny)  # instead of a probability of 0, whose logarithm is infinite
INPUTS, OUTS = "inputs", "outs"  # what networks take, and their outs before the loss's inverse link; with several
# groups inputs_0, outs_0, inputs_1 and so on


def write(members: Members, path: Path) -> None:
    """Write an .onnx file. Raises OSError, and SpecError, ConfigError and DataError for what it cannot hold."""
    content = model(members).SerializeToString()
    files.write(path, lambda beside: beside.write_bytes(content))


def model(members: Members) -> Any:
    """The onnx.ModelProto."""
    needed()
    members.check_entities()
    size = sum(each.params.nbytes for each in members.groups)
    if size > MOST - (1 << 20):
        raise ConfigError(
            f"{members.about} are {size:,} bytes; an ONNX file holds 2 GB: fewer networks, or safetensors, expected"
        )
    graph = Graph()
    helper = graph.helper
    inputs, prepared = _prepared(graph, members)
    suffixes = [f"_{at}" for at in range(len(members.groups))] if len(members.groups) > 1 else [""]
    said = [_said(graph, members, each, prepared, suffix) for each, suffix in zip(members.groups, suffixes)]
    outputs = _answers(graph, members, said)
    constants = [_constant(name, values) for name, values in graph.constants.items()]
    made = helper.make_model(
        helper.make_graph(graph.nodes, "gpubp", inputs, outputs, constants, doc_string=members.about),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="gpubp",
    )
    helper.set_model_props(made, {"gpubp": json.dumps(_described(members))})
    return made


def _described(members: Members) -> dict[str, Any]:
    """A description for people: the columns of the file's inputs, what its outputs mean, and its networks."""
    targets = () if members.preparation is None else members.preparation.target_columns
    return {
        "numbers": [each.name for each in members.columns if each.categories is None],
        "texts": {each.name: each.categories for each in members.columns if each.categories is not None},
        "targets": [each.name for each in targets],
        "classes": list(members.classes),
        "rows": list(members.rows),
    }


def _constant(name: str, values: Array) -> Any:
    from onnx import numpy_helper

    try:
        return numpy_helper.from_array(np.ascontiguousarray(values, object if values.dtype.kind == "U" else None), name)
    except UnicodeEncodeError as error:
        raise DataError(f"{error.object!r} is no text in UTF-8, which ONNX files hold") from None


def _prepared(graph: Graph, members: Members) -> tuple[list[Any], str]:
    """The graph's inputs, and the networks' inputs (M, I) before scaling, float64; unchanged without a preparation."""
    if not members.columns:
        return [graph.value(INPUTS, members.dtype, members.width)], INPUTS
    numbers = [each for each in members.columns if each.categories is None]
    texts = [each for each in members.columns if each.categories is not None]
    inputs, parts, order = [], [], {}
    if numbers:
        inputs.append(graph.value("numbers", float, len(numbers)))
        parts.append("numbers")
        if any(each.fill is not None for each in numbers):
            fill = graph.keep(np.array([math.nan if each.fill is None else each.fill for each in numbers]), "fill")
            parts = [graph.add("Where", graph.add("IsNaN", "numbers"), fill, "numbers")]
        order = {each.name: [at] for at, each in enumerate(numbers)}
    if texts:
        inputs.append(graph.value("texts", object, len(texts)))
    width = len(numbers)
    for at, column in enumerate(texts):
        assert column.categories is not None
        values = graph.add("Gather", "texts", graph.keep([at]), axis=1)
        if column.fill is not None and "" not in column.categories:
            missing = graph.add("Equal", values, graph.keep([""]))
            values = graph.add("Where", missing, graph.keep([str(column.fill)]), values)
        parts.append(graph.cast(graph.add("Equal", values, graph.keep([list(column.categories)])), np.float64))
        order[column.name] = [*range(width, width := width + len(column.categories))]
    found = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    places = [place for column in members.columns for place in order[column.name]]
    if places != sorted(places):
        found = graph.add("Gather", found, graph.keep(places), axis=1)
    return inputs, found


def _said(graph: Graph, members: Members, group: Group, given: str, suffix: str) -> str:
    """The predictions of a group's networks (k, M, O), or of one alone (M, O), float64, in the units of the targets.
    suffix: of the tensors' names."""
    alone, scaling, net = len(members) == 1, members.scaling_of(group), given
    graph.single = members.dtype == np.float32
    if scaling is not None:
        net = _scaled(graph, given, ("Sub", scaling.offset), ("Div", scaling.factor))
        net = graph.cast(net, members.dtype, f"{INPUTS}{suffix}")
    for (weight, bias), function in zip(
        group.layers(), group.functions(FUNCTIONS, "gpubp.export.onnx_graph.FUNCTIONS")
    ):
        if alone:
            both = [weight[0]] if bias is None else [weight[0], bias[0, 0]]
            net = graph.add("Gemm" if bias is not None else "MatMul", net, *map(graph.keep, both))
        else:
            net = graph.add("MatMul", net, graph.keep(weight))
            net = net if bias is None else graph.add("Add", net, graph.keep(bias))
        net = function(graph, net)
    graph.single = False
    out = LINKS[group.link](graph, graph.cast(net, np.float64, f"{OUTS}{suffix}"))
    if scaling is not None and members.task == "numbers":
        out = _scaled(graph, out, ("Mul", scaling.target_factor), ("Add", scaling.target_offset))
    if members.task == "binary":
        out = graph.add("Concat", graph.add("Sub", graph.number(1), out), out, axis=-1)
    return out


def _scaled(graph: Graph, given: str, *steps: tuple[str, Array]) -> str:
    """`given` after these operations, skipping those that change nothing."""
    for operator, values in steps:
        if (values != (0 if operator in ("Add", "Sub") else 1)).any():
            given = graph.add(operator, given, graph.keep(values))
    return given


def _answers(graph: Graph, members: Members, said: Sequence[str]) -> list[Any]:
    """The graph's outputs."""
    one, width = len(members) == 1, members.groups[0].spec.widths[-1]
    each = said[0] if len(said) == 1 else graph.add("Concat", *said, axis=0)
    mean = each if one else graph.add("ReduceMean", each, graph.keep([0]), keepdims=0)
    flat = members.task == "sign" or (members.task == "numbers" and members.flat)
    chances = members.classes and members.logits
    name = "probabilities" if chances else "margin" if members.task == "sign" else "prediction"

    def output(name: str, values: str) -> Any:
        if flat:
            graph.add("Squeeze", values, graph.keep([-1]), name=name)
        else:
            graph.add("Identity", values, name=name)
        return graph.value(name, float, *([] if flat else [len(members.classes) or width]))

    outputs = [output(name, mean)]
    if not one:
        gap = graph.add("Sub", each, mean)
        square = graph.add("ReduceMean", graph.add("Mul", gap, gap), graph.keep([0]), keepdims=0)
        outputs.append(output("std", graph.add("Sqrt", square)))
        if members.logits:
            _entropies(graph, bool(members.classes), each, mean)
            shape = [] if members.classes else [width]
            outputs += [graph.value(name, float, *shape) for name in ("entropy", "mutual_information")]
    if members.classes:
        if members.task == "sign":
            number = graph.cast(graph.add("Greater", name, graph.number(0)), np.int64)
        else:
            number = graph.add("ArgMax", name, axis=-1, keepdims=0)
        labels = np.array(members.classes)
        graph.add("Gather", graph.keep(labels), number, name="label")
        outputs.insert(0, graph.value("label", object if labels.dtype.kind == "U" else labels.dtype))
    return outputs


def _entropies(graph: Graph, classes: bool, each: str, mean: str) -> None:
    """entropy and mutual_information, as in Ensemble, of the networks' probabilities (K, M, O) and their mean."""
    total, own = (_entropy(graph, chances, classes) for chances in (mean, each))
    gap = graph.add("Sub", total, graph.add("ReduceMean", own, graph.keep([0]), keepdims=0))
    graph.add("Identity", total, name="entropy")
    graph.add("Max", gap, graph.number(0), name="mutual_information")  # rounding may give less


def _entropy(graph: Graph, chances: str, classes: bool) -> str:
    """The entropy in nats of probabilities (..., classes), or of each single probability (...) of a yes."""
    if not classes:
        no = graph.add("Sub", graph.number(1), chances)
        both = [graph.add("Unsqueeze", part, graph.keep([-1])) for part in (no, chances)]
        chances = graph.add("Concat", *both, axis=-1)
    logs = graph.add("Log", graph.add("Max", chances, graph.number(TINY)))
    found = graph.add("ReduceSum", graph.add("Mul", chances, logs), graph.keep([-1]), keepdims=0)
    return graph.add("Sub", graph.number(0), found)
