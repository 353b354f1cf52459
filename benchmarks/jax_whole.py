"""A whole training in JAX: jit of vmap over the networks of scan over the steps, and of the evaluation after it.

It starts and ends in host memory, like gpubp.train.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy
import optax
from torch import Tensor

from .jax_peers import Jax
from .workloads import Problem


class Whole(Jax):
    """`steps` steps on a problem that has the minibatches of one pass, pass after pass; then loss and accuracy of
    every network on all samples. last: the order of axes."""

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
