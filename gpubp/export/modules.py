"""A row to and from torch.nn: network n as a Sequential of Linear and activation, a list of these as a population, and
PreparedNetwork, a network with the preparation of its samples."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, skip_init

from ..errors import ShapeError, SpecError
from ..maths.losses import LOSSES
from ..maths.spec import NetworkSpec
from ..raw.preparation import Preparation
from ..system import arrays


class Sine(nn.Module):
    """out = sin(net), which torch.nn lacks."""

    def forward(self, net: Tensor) -> Tensor:
        """Net (any shape) -> out, the same shape."""
        return torch.sin(net)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "hard_tanh": nn.Hardtanh,
    "sine": Sine,
}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def sequential(spec: NetworkSpec, row: Tensor) -> nn.Sequential:
    """row (P,) -> Linear and activation, alternating, with copies of its numbers; an identity output adds no module.

    A layer's shared bias becomes one equal bias per unit; frozen biases get requires_grad=False.
    """
    modules: list[nn.Module] = []
    for name, (weight, bias) in zip(spec.activations, spec.layers(row[None])):
        make = MODULES.get(str(name))
        if make is None:
            raise SpecError(f"activation {name!r} has no torch.nn module; add one: gpubp.MODULES[{name!r}] = ...")
        inputs, outputs = weight.shape[1:]
        bias_too = spec.bias != "none"
        linear = skip_init(nn.Linear, inputs, outputs, bias=bias_too, device=row.device, dtype=row.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight[0].T)
            if bias_too:
                linear.bias.copy_(bias[0].expand(outputs))
                linear.bias.requires_grad_(spec.train_bias)
        modules += [linear, make()]
    return nn.Sequential(*(modules[:-1] if spec.output == "identity" else modules))


class PreparedNetwork(nn.Module):
    """A network on raw samples (..., columns) -> (..., O): numbers in the units of the targets; logits of classes, for
    torch's losses.

    A number column is used unchanged, a text column as indices into the sorted `categories`, as in
    pandas.Categorical(texts, categories).codes: -1 for a text not seen in training. NaN means a
    missing value if training filled these, and stays NaN if it refused them.
    """

    offset: Tensor
    factor: Tensor
    category: Tensor
    fill: Tensor
    place: Tensor
    target_offset: Tensor
    target_factor: Tensor

    def __init__(self, network: nn.Sequential, preparation: Preparation, loss: str) -> None:
        super().__init__()
        columns, targets = preparation.columns, preparation.target_columns
        self.network, self.inverse_link, self.labels = network, LOSSES[loss].inverse_link, bool(preparation.classes)
        self.columns = tuple(column.name for column in columns)
        self.categories = {each.name: each.categories for each in columns if each.categories is not None}
        inputs = [
            (place, column.offset, column.factor, category)
            for place, column in enumerate(columns)
            for category in ([None] if column.categories is None else range(len(column.categories)))
        ]
        fills = [
            each.categories.index(each.fill) if each.categories and isinstance(each.fill, str) else each.fill
            for each in columns
        ]
        device = next(network.parameters()).device

        def keep(name: str, values: Iterable[Any]) -> None:
            numbers = [math.nan if value is None else value for value in values]
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float64, device=device))

        self.register_buffer("place", torch.tensor([place for place, *_ in inputs], device=device))
        for number, name in enumerate(("offset", "factor", "category"), 1):
            keep(name, [each[number] for each in inputs])
        keep("fill", fills)
        keep("target_offset", [column.offset for column in targets])
        keep("target_factor", [column.factor for column in targets])

    def forward(self, raw: Tensor) -> Tensor:
        """Raw (..., columns) -> (..., O). Raises ShapeError for another number of columns."""
        if not isinstance(raw, Tensor):  # an array
            raw = arrays.tensor("raw samples", raw).to(self.offset.device)
        if not raw.ndim or raw.shape[-1] != len(self.columns):
            raise ShapeError(
                f"raw samples {tuple(raw.shape)}: the last size must be {len(self.columns)}, one for each of `columns`"
            )
        raw = raw.to(self.offset.dtype)
        raw = torch.where(raw.isnan(), self.fill, raw)[..., self.place]
        one_hot = (raw == self.category).to(raw.dtype)
        inputs = torch.where(self.category.isnan(), (raw - self.offset) / self.factor, one_hot)
        out: Tensor = self.network(inputs.to(next(self.network.parameters()).dtype))
        return out if self.labels else self.inverse_link(out) * self.target_factor.to(out) + self.target_offset.to(out)

    def extra_repr(self) -> str:
        """The input columns."""
        return ", ".join(self.columns)


def rows(modules: Iterable[nn.Sequential], loss: str) -> tuple[NetworkSpec, Tensor]:
    """Sequentials of equal topology -> their specification and rows (N, P). Raises SpecError for any other module, and
    for one that a row cannot represent: other functions, tied or frozen weights, hooks. Shared parts, such as a
    trunk, are copied to each row."""
    if isinstance(modules, nn.Module):  # a Sequential's iterator gives its parts
        raise SpecError(f"from_modules takes several networks: [module], not the {type(modules).__name__} itself")
    check_several("from_modules takes several networks: [module]", modules)
    named = ((f"module {place}", module) for place, module in enumerate(modules))
    return alike("from_modules", "module", ((name, *_row(module, name, loss)) for name, module in named))


def check_several(what: str, given: object) -> None:
    """Raise SpecError, saying that `what` is expected, unless `given` has items."""
    if not isinstance(given, Iterable) or not getattr(given, "ndim", 1):
        raise SpecError(f"{what}, not {given!r}")


def alike(call: str, what: str, found: Iterable[tuple[str, NetworkSpec, Tensor]]) -> tuple[NetworkSpec, Tensor]:
    """The specification and the rows (N, P) of the networks given to `call`. found: for each the name, specification,
    and (P,) or (K, P). Raises SpecError unless they form one population, and for none."""
    rows: list[Tensor] = []
    first, others = "", tuple[object, ...]()
    for name, spec, row in found:
        own = spec, f"{row.dtype} on {row.device}"
        first, others = (first, others) if rows else (name, own)
        for this, that in zip(own, others):
            if this != that:
                raise SpecError(f"{name} is {this}, {first} is {that}; one topology expected, of one dtype and device")
        rows.append(row.reshape(-1, spec.size))
    if not rows:
        raise SpecError(f"{call} needs one {what} or more, got none")
    return spec, torch.cat(rows)


def _row(module: nn.Module, where: str, loss: str) -> tuple[NetworkSpec, Tensor]:
    names: list[str] = []
    linears: list[nn.Linear] = []
    parameters: dict[str, Tensor] = {}
    for at, part in _parts(module, where):
        if _is(part, nn.Linear):
            names += ["identity"] * (len(linears) - len(names))
            linears.append(part)
            both = {"weight": part.weight, "bias": part.bias}
            parameters |= {f"{at}.{kind}": each for kind, each in both.items() if each is not None}
        elif (name := _name(part)) is not None and len(names) == len(linears) - 1:
            names.append(name)
        else:
            raise SpecError(
                f"{at} is {part}; Linear, each with at most one activation of {', '.join(MODULES)}, expected"
            )
    if not linears:
        raise SpecError(f"{where} is {module}; a Sequential of Linear and activations expected")
    names += ["identity"] * (len(linears) - len(names))
    bias = {linear.bias is not None for linear in linears}
    if len(bias) > 1:
        raise SpecError(f"{where}: some Linear have a bias and some have none; all or none expected")
    for before, after in itertools.pairwise(linears):
        if before.out_features != after.in_features:
            raise SpecError(f"{where}: {before} is followed by {after}; equal features expected")
    spec = NetworkSpec(
        (linears[0].in_features, *(linear.out_features for linear in linears)),
        hidden=tuple(names[:-1]),
        output=names[-1],
        loss=loss,
        bias="neuron" if bias.pop() else "none",
        train_bias=_trained(parameters),
    )
    return spec, torch.cat([each.detach().t().flatten() for each in parameters.values()])


def _parts(module: nn.Module | None, where: str) -> Iterator[tuple[str, Any]]:
    """The modules that a Sequential calls, those of nested Sequentials too, with their positions; without Identity.
    Raises SpecError for a module that computes more than its class."""
    if not isinstance(module, nn.Module):
        raise SpecError(f"{where} is a {type(module).__name__}; a Sequential of Linear and activations expected")
    what, plain = f"{where}, {type(module).__name__},", "which a population would not call"
    if "forward" in vars(module):
        raise SpecError(f"{what} has a forward that replaces its class's, {plain}")
    if parametrize.is_parametrized(module):
        raise SpecError(f"{what} has parametrizations, {plain}: remove_parametrizations leaves plain weights")
    if any(map(nn.parameter.is_lazy, module.parameters(recurse=False))):
        raise SpecError(f"{what} has no numbers yet; call the module once on a batch of inputs")
    if any(hooks for name, hooks in vars(module).items() if name in HOOKS):
        raise SpecError(f"{what} has hooks, such as those of weight_norm and pruning, {plain}")
    if _is(module, nn.Sequential):
        for name, part in module._modules.items():  # children() lists a repeated object once
            yield from _parts(part, f"{where}[{name}]")
    elif not _is(module, nn.Identity):
        yield where, module


def _is(part: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `part` computes the same as `kind`; it may be a subclass."""
    return isinstance(part, kind) and type(part).forward is kind.forward


def _trained(parameters: Mapping[str, Tensor]) -> bool:
    """Whether the biases train. Raises SpecError for parameters that a population would train differently."""
    seen: dict[int, str] = {}
    first, like = next(iter(parameters.items()))
    for name, each in parameters.items():
        if each.is_meta:
            raise SpecError(f"{name} is on device meta, where it has no numbers")
        if (each.dtype, each.device) != (like.dtype, like.device):
            raise SpecError(
                f"{name} is {each.dtype} on {each.device}, {first} is {like.dtype} on {like.device}; one type and one "
                "device expected"
            )
        if each._backward_hooks or each._post_accumulate_grad_hooks:
            raise SpecError(f"{name} has hooks on its gradient, which a population would not call")
        if name.endswith("weight") and not (each.requires_grad and each.is_leaf):
            why = "is computed from other tensors" if each.requires_grad else "has requires_grad=False"
            raise SpecError(f"{name} {why}; a population trains all weights: module.requires_grad_()")
        if (other := seen.setdefault(each.data_ptr(), name)) != name:
            raise SpecError(f"{name} is the same as {other}; a population trains the parameters of each layer apart")
    biases = {name: each.requires_grad for name, each in parameters.items() if name.endswith("bias")}
    if len(set(biases.values())) > 1:
        frozen = ", ".join(name for name, trains in biases.items() if not trains)
        raise SpecError(f"{frozen} with requires_grad=False; all or none of a population's biases train")
    return all(biases.values())


def _name(module: nn.Module) -> str | None:
    """The activation that `module` computes, with gpubp's constants, or None."""

    def constants(each: nn.Module) -> dict[str, Any]:
        return {key: value for key, value in vars(each).items() if key[0] != "_" and key not in ("inplace", "training")}

    for name, make in MODULES.items():
        if _is(module, type(plain := make())) and constants(plain) == constants(module):
            return name
    return None
