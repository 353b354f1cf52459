"""JAX with optax: jit of lax.scan over the K steps, with weights and optimizer state donated, so updated in place.

Two orders of axes, by vmap of one network's gradient: the network axis first, (N, I, O), or last, (I, O, N).
The latter written out, as sums of products along the networks, is slower on W1 to W3 by 2 to 20 times. The number of
threads is read from the environment when the first array is made (machine.py). On a GPU JAX by default rounds operands
of float32 products to TF32; here it does so by name alone.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy
import optax
import torch
from torch import Tensor

from .workloads import Problem

jax.config.update("jax_enable_x64", True)  # parity is in float64; every array below has an explicit dtype

VALUES = {"identity": lambda net: net, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}


def array(tensor: Tensor) -> jax.Array:
    """A copy, which torch's changes in place do not affect."""
    return jnp.array(tensor.detach().cpu().numpy(), copy=True)


class Jax:
    """N networks; last: the order of axes. precision: of products, JAX's word; highest: in float32."""

    def __init__(self, problem: Problem, last: bool = False, precision: str = "highest") -> None:
        spec, params = problem.population.spec, problem.population.params
        self.spec, self.last, self.networks, self.precision = spec, last, problem.population.count, precision
        self.values = [VALUES[name] for name in spec.activations]
        self.inputs = array(problem.inputs)
        self.targets = self._targets(problem)
        layers = [(array(weight), array(bias)) for weight, bias in spec.layers(params)]
        if last:
            layers = [tuple(jnp.array(jnp.moveaxis(part, 0, -1), copy=True) for part in layer) for layer in layers]
        self.optimizer = self._optimizer(problem)
        self.state = (layers, self.optimizer.init(layers))
        start = time.perf_counter()
        self._compile()
        self.compile_seconds = time.perf_counter() - start

    def _compile(self) -> None:
        with jax.default_matmul_precision(self.precision):
            run = jax.jit(self._many, donate_argnums=0)
            self.run = run.lower(self.state, self.inputs, self.targets).compile()

    def _targets(self, problem: Problem) -> jax.Array:
        """(K, B, O): class numbers one-hot, whose product with the outs has a cheap gradient."""
        targets = array(problem.targets)
        if not problem.targets.is_floating_point():
            targets = jax.nn.one_hot(targets, self.spec.widths[-1], dtype=self.inputs.dtype)
        return targets

    def _optimizer(self, problem: Problem) -> optax.GradientTransformation:
        """optax's; with rates per network its direction, and the rates along the network axis."""
        adam = problem.optimizer == "adam"
        if not isinstance(problem.lr, Tensor):
            return optax.adam(problem.lr) if adam else optax.sgd(problem.lr)
        rates = array(problem.lr.to(problem.inputs.dtype))

        def scaled(update: jax.Array) -> jax.Array:
            return -update * (rates if self.last else rates.reshape(-1, *[1] * (update.ndim - 1)))

        scale = optax.stateless(lambda updates, _: jax.tree.map(scaled, updates))
        return optax.chain(optax.scale_by_adam() if adam else optax.identity(), scale)

    def _many(self, state: Any, inputs: jax.Array, targets: jax.Array) -> Any:
        """K steps."""

        def step(state: Any, minibatch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            layers, memory = state
            axis = -1 if self.last else 0
            gradient = jax.vmap(jax.grad(self._one), in_axes=(axis, None, None), out_axes=axis)
            grads = gradient(layers, *minibatch)
            updates, memory = self.optimizer.update(grads, memory, layers)
            return (optax.apply_updates(layers, updates), memory), None

        return jax.lax.scan(step, state, (inputs, targets))[0]

    def _one(self, layers: Any, inputs: jax.Array, target: jax.Array) -> jax.Array:
        """The loss of one network: weights (I, O), biases (O,)."""
        out = inputs
        for (weight, bias), value in zip(layers, self.values):
            out = value(out @ weight + bias)
        return self._loss(out, target)

    def _loss(self, out: jax.Array, target: jax.Array) -> jax.Array:
        """The mean over the samples, from outs (B, O)."""
        if self.spec.loss == "cross_entropy":
            return -(target * jax.nn.log_softmax(out)).sum(1).mean()
        squares = (out - target) ** 2
        return squares.mean() if self.spec.loss == "mean_squared_error" else 0.5 * squares.sum(1).mean()

    def call(self) -> None:
        """K steps."""
        self.state = self.run(self.state, self.inputs, self.targets)

    def wait(self) -> None:
        """Until they are done."""
        jax.block_until_ready(self.state)

    def params(self) -> Tensor:
        """Layer after layer, the weight before the bias."""
        parts = [numpy.asarray(part) for layer in self.state[0] for part in layer]
        if self.last:
            parts = [numpy.moveaxis(part, -1, 0) for part in parts]
        return torch.from_numpy(numpy.concatenate([part.reshape(self.networks, -1) for part in parts], 1))


class Whole(Jax):
    """A whole training: jit of vmap over the networks of scan over `steps` steps, on the minibatches of one pass, pass
    after pass; then loss and accuracy of every network on all samples. From host memory to host memory, like
    gpubp.train. last: the order of axes."""

    def __init__(self, problem: Problem, steps: int, last: bool = False) -> None:
        self.steps = steps
        super().__init__(problem, last)

    def _optimizer(self, problem: Problem) -> optax.GradientTransformation:
        return optax.adam(problem.lr) if problem.optimizer == "adam" else optax.sgd(problem.lr)

    def _many(self, state: Any, inputs: jax.Array, targets: jax.Array) -> Any:
        """The whole training, from initial weights. -> weights, losses, accuracies."""
        axis = -1 if self.last else 0
        return jax.vmap(self._alone, in_axes=(axis, None, None), out_axes=(axis, 0, 0))(state[0], inputs, targets)

    def _alone(self, layers: Any, inputs: jax.Array, targets: jax.Array) -> Any:
        def step(state: Any, number: jax.Array) -> tuple[Any, None]:
            layers, memory = state
            grads = jax.grad(self._one)(layers, inputs[number], targets[number])
            updates, memory = self.optimizer.update(grads, memory, layers)
            return (optax.apply_updates(layers, updates), memory), None

        begin = layers, self.optimizer.init(layers)
        (layers, _), _ = jax.lax.scan(step, begin, jnp.arange(self.steps) % len(inputs))
        every, truth = inputs.reshape(-1, inputs.shape[-1]), targets.reshape(-1, targets.shape[-1])
        out = every
        for (weight, bias), value in zip(layers, self.values):
            out = value(out @ weight + bias)
        return layers, self._loss(out, truth), (out.argmax(1) == truth.argmax(1)).mean()

    def _compile(self) -> None:
        """Nothing is donated: every call starts from the initial weights."""
        with jax.default_matmul_precision("highest"):
            given = self.given = jax.device_get((self.state, self.inputs, self.targets))
            self.run = jax.jit(self._many).lower(*given).compile()

    def train(self) -> tuple[Any, numpy.ndarray, numpy.ndarray]:
        """One training. -> weights, losses, accuracies, in host memory."""
        return jax.device_get(self.run(*self.given))  # type: ignore[no-any-return]

    def rows(self, layers: Any) -> Tensor:
        """Weights in gpubp's layout."""
        self.state = layers, None
        return self.params()
