"""A Python file that predicts with NumPy alone: the source of a module, with the numbers of its networks inside.

Names from data are written as literals, never as code or comments. A row of FUNCTIONS is the body of an activation.
"""

import base64
import pprint
from inspect import getsource
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np

from ..errors import SpecError
from ..maths.activations import ACTIVATIONS
from ..raw.arrow import as_text, as_texts
from ..system import files
from .members import Array, Group, Members

FUNCTIONS = {
    "identity": "return net",
    "sigmoid": "return 1 / (1 + np.exp(-net))",
    "tanh": "return np.tanh(net)",
    "relu": "return np.maximum(net, 0)",
    "leaky_relu": "return np.maximum(net, net.dtype.type(0.01) * net)",
    "elu": "return np.maximum(net, 0) + np.expm1(np.minimum(net, 0))",
    "selu": """\
alpha, scale = 1.6732632423543772, 1.0507009873554805
return scale * np.maximum(net, 0) + scale * alpha * np.expm1(np.minimum(net, 0))""",
    "silu": "return net / (1 + np.exp(-net))",
    "gelu": "return net * (0.5 + 0.5 * erf(net * math.sqrt(0.5)))",
    "gelu_tanh": """\
share = np.tanh(math.sqrt(2 / math.pi) * (net + 0.044715 * net * net * net))
return 0.5 * net * (1 + share)""",
    "softplus": "return np.maximum(net, 0) + np.log1p(np.exp(-np.abs(net)))",
    "softsign": "return net / (1 + np.abs(net))",
    "hard_tanh": "return np.clip(net, -1, 1)",
    "sine": "return np.sin(net)",
}
HELPERS = {  # functions that others call
    "erf": """\
def erf(net):
    return np.vectorize(math.erf, otypes=[net.dtype])(net)
""",
    "softmax": """\
def softmax(net):
    powers = np.exp(net - net.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
""",
    "entropy_of": '''\
def entropy_of(chances):
    """Of probabilities (..., classes), in nats: (...)."""
    logs = np.log(np.maximum(chances, np.finfo(float).tiny))
    return 0 - (chances * logs).sum(-1)
''',
    "as_texts": f"{getsource(as_text)}\n\n{getsource(as_texts)}",
    "numbers": '''\
def numbers(text, dtype, *shape):
    """The array with these bytes, in base64."""
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)
''',
}
FEW = 4000  # numbers of an array up to which it is written as text, for people

COLUMN = '''\
def column(samples, place):
    """The inputs (M, 1) of a column of numbers, or (M, categories) of a column of texts, 0 for other texts."""
    name = COLUMNS[place]
    try:
        given = samples[:, place] if isinstance(samples, np.ndarray) else samples[name]
    except Exception:  # each kind of frame has its own
        raise ValueError(f"samples have no column {name!r}; {', '.join(COLUMNS)} expected") from None
    values = np.asarray(given, None if hasattr(given, "__array__") else object)  # else a NaN among texts is one
    if values.ndim != 1:
        raise ValueError(f"column {name!r} has shape {values.shape}; a value per sample expected")
    if name in NUMERIC:
        values = as_texts(values, {"False", "True"}.issuperset(CATEGORIES[name]))
    if name in CATEGORIES or values.dtype.kind not in "biuf":
        values = values.astype(object)
        missing = np.array([each is None or type(each).__name__ == "NAType" or each != each for each in values], bool)
    else:
        missing = np.isnan(values)
    if missing.any():
        if name not in FILL:
            raise ValueError(f"column {name!r} has missing values, which training refused")
        values = np.where(missing, FILL[name], values)
    if name not in CATEGORIES:
        try:
            values = values.astype(float)
        except (TypeError, ValueError):
            raise ValueError(f"column {name!r} is not numeric, as it was in training") from None
        if np.isinf(values).any():
            raise ValueError(f"column {name!r} holds infinity; finite numbers expected")
        return values[:, None]
    if not all(isinstance(text, str) for text in values):
        raise ValueError(f"column {name!r} is not text, as it was in training")
    return (values[:, None] == np.array(CATEGORIES[name], object)).astype(float)
'''
PREPARED = '''\
def inputs(samples):
    """Raw samples, an array (M, columns) or a list of rows in the order of COLUMNS, or a mapping or a frame with these
    columns -> inputs of the networks, before scaling, (M, inputs). None, NaN and pandas.NA are missing values."""
    if isinstance(samples, (list, tuple)):
        samples = np.array(samples, object)
    if isinstance(samples, np.ndarray) and samples.shape[1:] != (len(COLUMNS),):
        raise ValueError(f"samples {samples.shape}: (M, {len(COLUMNS)}) expected")
    parts = [column(samples, place) for place in range(len(COLUMNS))]
    if len({len(part) for part in parts}) > 1:
        raise ValueError(f"columns of {', '.join(str(len(part)) for part in parts)} samples; equal lengths expected")
    return np.concatenate(parts, 1)
'''
PLAIN = '''\
def inputs(samples):
    """Numbers (M, inputs), as the networks see them."""
    found = np.asarray(samples, DTYPE)
    if found.shape[1:] != (INPUTS,):
        raise ValueError(f"samples {found.shape}: (M, {INPUTS}) expected")
    return found
'''
ANSWERS = {
    "numbers": '''\
def predict(samples):
    """{mean} {shape}."""
    return members(samples).mean(0){flat}
''',
    "sign": '''\
def margin(samples):
    """{mean} (M,): from -1, the first of CLASSES, to 1, the second."""
    return members(samples).mean(0)[:, 0]


def predict(samples):
    """The labels (M,)."""
    return np.array(CLASSES)[(margin(samples) > 0).astype(int)]
''',
    "classes": '''\
def predict_proba(samples):
    """{mean} (M, classes), in the order of CLASSES."""
    return members(samples).mean(0)


def predict(samples):
    """The labels (M,)."""
    return np.array(CLASSES)[predict_proba(samples).argmax(-1)]
''',
}
STD = '''\
def std(samples):
    """The standard deviation between the networks, of what their mean is taken of."""
    return members(samples).std(0){flat}
'''
ENTROPY = '''\
def chances(samples):
    """The probabilities of each network, (networks, {shape}, classes)."""
    return {chances}


def entropy(samples):
    """That of the mean probability, in nats: ({shape})."""
    return entropy_of(chances(samples).mean(0))


def mutual_information(samples):
    """entropy() minus the mean of the networks' own entropies, in nats: ({shape}). High where they disagree."""
    found = chances(samples)
    return np.maximum(entropy_of(found.mean(0)) - entropy_of(found).mean(0), 0)
'''


def write(members: Members, path: Path) -> None:
    """Write a .py file. Raises OSError, and SpecError and ConfigError for members that it cannot hold."""
    files.write_text(path, source(members))


def source(members: Members) -> str:
    """The text of the module."""
    names = {name for each in members.groups for name in (*map(str, each.spec.activations), each.link)}
    members.check_entities()
    for each in members.groups:
        each.functions(FUNCTIONS, "gpubp.export.numpy.FUNCTIONS")
    names -= {"identity", "exp", "softmax"}
    if strange := [name for name in names if not name.isidentifier()]:
        raise SpecError(f"activation {strange[0]!r}: a name that is one word expected, as that of a function in Python")
    functions = [f"def {_function(name)}(net):\n{indent(FUNCTIONS[name], '    ')}\n" for name in sorted(names)]
    prepared = [COLUMN, PREPARED] if members.columns else [PLAIN]
    groups = [_group(members, at, each) for at, each in enumerate(members.groups)]
    parts = [*functions, *prepared, *groups, _members(members), _answers(members)]
    helpers = [text for name, text in HELPERS.items() if any(f"{name}(" in part for part in parts)]
    text = "\n\n".join([_constants(members), *helpers, *parts])
    modules = [f"import {name}\n" for name in ("base64", "math") if f"{name}." in text]
    return f"{_head(members)}\n{''.join(modules)}\nimport numpy as np\n\n{text}"


def _function(name: str) -> str:
    """The name of an activation's function, unique in the module."""
    return name if name in ACTIVATIONS else f"{name}_activation"


def _head(members: Members) -> str:
    return (
        f'"""{members.about}, trained with gpubp, as functions of NumPy.\n\n'
        "predict(samples) takes raw samples, as inputs() lists them, and answers as the networks do together.\n"
        '"""\n'
    )


def _constants(members: Members) -> str:
    """What the functions read: names, labels, scaling."""
    rows = [members.rows[at] for each in members.groups for at in each.place.tolist()]
    lines = [f"ROWS = {_literal(rows)}  # of the networks in their run", f"DTYPE = np.{members.dtype}"]
    if members.classes:
        lines.append(f"CLASSES = {_literal(list(members.classes))}")
    if not members.columns:
        return "\n".join([*lines, f"INPUTS = {members.width}", ""])
    texts = {each.name: list(each.categories) for each in members.columns if each.categories is not None}
    fills = {each.name: each.fill for each in members.columns if each.fill is not None}
    lines += [
        f"COLUMNS = {_literal([each.name for each in members.columns])}",
        f"CATEGORIES = {_literal(texts)}  # of columns of texts, an input each",
        f"NUMERIC = {_literal([each.name for each in members.columns if each.numeric])}  # of these, those of numbers",
        f"FILL = {_literal(fills)}  # for missing values",
    ]
    return "\n".join([*lines, ""])


def _group(members: Members, at: int, group: Group) -> str:
    """The numbers of the networks of one specification, and the function that computes them."""
    arrays: dict[str, str] = {}
    single = len(group.place) == 1

    def keep(name: str, values: Array) -> str:
        arrays[f"{name}_{at}"] = _array(values[0] if single and values.ndim == 3 else values)
        return f"{name}_{at}"

    lines, scaling, link = ["out = inputs"], members.scaling_of(group), group.link
    if scaling is not None:
        offset, factor = keep("offset", scaling.offset), keep("factor", scaling.factor)
        lines = [f"out = ((inputs - {offset}) / {factor}).astype(DTYPE)"]
    for layer, ((weight, bias), name) in enumerate(zip(group.layers(), map(str, group.spec.activations)), 1):
        net = f"out @ {keep(f'weight_{layer}', weight)}"
        net += "" if bias is None else f" + {keep(f'bias_{layer}', bias)}"
        lines.append(f"out = {net}" if name == "identity" else f"out = {_function(name)}({net})")
    call = {"identity": "{}", "exp": "np.exp({})"}.get(link, f"{link}({{}})")
    lines.append(f"out = {call.format('out.astype(float)')}")
    if members.task == "binary":
        lines.append("out = np.concatenate((1 - out, out), -1)")
    if scaling is not None and members.task == "numbers":
        factor, offset = (keep(name, getattr(scaling, name)) for name in ("target_factor", "target_offset"))
        lines.append(f"out = out * {factor} + {offset}")
    about = f"{len(group.place):,} network{'s' * (not single)} of {'-'.join(map(str, group.spec.widths))}"
    lines.append(f"return {'out[None]' if single else 'out'}")
    numbers = "".join(f"{name} = {text}\n" for name, text in arrays.items())
    body = indent("\n".join(lines), "    ")
    return f'{numbers}\n\ndef networks_{at}(inputs):\n    """{about}: (networks, M, outputs)."""\n{body}\n'


def _members(members: Members) -> str:
    calls = [f"networks_{at}(given)" for at in range(len(members.groups))]
    found = calls[0] if len(calls) == 1 else f"np.concatenate([{', '.join(calls)}])"
    return (
        'def members(samples):\n    """What each network says, (networks, M, outputs), in the order of ROWS."""\n'
        "    given = inputs(samples)\n"
        '    with np.errstate(over="ignore", under="ignore"):  # of exponentials that saturate\n'
        f"        return {found}\n"
    )


def _answers(members: Members) -> str:
    task = {"binary": "classes"}.get(members.task, members.task)
    mean = "The mean of the networks' answers" if len(members) > 1 else "What the network says"
    flat = "[:, 0]" if task == "sign" or (task == "numbers" and members.flat) else ""
    shape = "(M,)" if flat else "(M, outputs)"
    text = ANSWERS[task].replace("{mean}", mean).replace("{shape}", shape).replace("{flat}", flat)
    if len(members) == 1:
        return text
    text += f"\n\n{STD.replace('{flat}', flat)}"
    if not members.logits:
        return text
    own = "members(samples)" if members.classes else "np.stack((1 - (yes := members(samples)), yes), -1)"
    shape = "M" if members.classes else "M, outputs"
    return text + f"\n\n{ENTROPY.replace('{chances}', own).replace('{shape}', shape)}"


def _literal(value: Any) -> str:
    """A list or a dict of texts, numbers and truth values as Python source."""
    return pprint.pformat(value, width=116, compact=True, sort_dicts=False)


def _array(values: Array) -> str:
    """An array as Python source: numbers that read back to the same bits, or, if there are many, their bytes."""
    name = f"np.{values.dtype}"
    if values.size <= FEW:
        text = np.array2string(values, threshold=FEW + 1, separator=", ", floatmode="unique", max_line_width=110)
        return f"np.array({text}, {name})"
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    text = base64.encodebytes(little.tobytes()).decode()
    return f'numbers("""\n{text}""", "{little.dtype.str}", {", ".join(map(str, values.shape))})'
