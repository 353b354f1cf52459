"""Mistakes planted in a copy of the package, each of which the promise test named beside it must find."""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from .apart import APART
from .mutations import planted

ROOT = Path(__file__).parent.parent


class Mutant(NamedTuple):
    """What `file` has once, and the mistake, as planted() reads them; `test` must fail by it."""

    file: str
    text: str
    test: str


GRADIENT = "test_gradient.py::test_the_gradient_is_autograds"
STEP = "test_step.py::test_"
OPTIMIZER = "test_optimizers.py::test_an_optimizer_is_torchs_on_given_gradients"
ALONE = "test_independence.py::test_a_network_is_the_same_alone_and_among_any_others_in_any_order"
MUTANTS = {
    "the update adds": Mutant("maths/optimizers.py", "param.addcmul_(rates.direction, direction[[, value=-1 ~> ]])",
        f"{OPTIMIZER}[sgd]"),
    "the delta passes the weights untransposed": Mutant(
        "backprop.py", "delta = product(delta, layers[number][0][[.mT ~> ]])",
        "test_gradient.py::test_each_hidden_layer_may_have_its_own_activation"),
    "a slope is missing": Mutant("backprop.py",
        "delta *= [[ACTIVATIONS[spec.activations[number - 1]].slope ~> (lambda *given: 1)]](passed.nets[number - 1]",
        f"{GRADIENT}[elu-quantile-neuron]"),
    "the output's slope is missing": Mutant(
        "backprop.py", "[[delta = delta * ACTIVATIONS[spec.output].slope(net, out) ~> pass]]",
        "test_gradient.py::test_the_gradient_passes_an_output_activation[sigmoid-mean_squared_error]"),
    "layerwise takes the stale weights": Mutant(
        "engines/block.py", 'if self.recipe.update_order == "[[layerwise ~> never]]":',
        f"{STEP}layerwise_updates_a_layer_before_the_delta_below_it[neuron]"),
    "simultaneous takes the new weights": Mutant(
        "engines/block.py", 'if self.recipe.update_order == "layerwise"[[ ~>  or "clip_norm" not in self.typed]]:',
        f"{STEP}a_step_of_sgd_subtracts_the_gradient_of_loss_and_penalties_that_is_clipped"),
    "the loss is a sum, not a mean": Mutant("backprop.py",
        "loss, delta = error.sum(1) * [[(scale / batch) ~> scale]], slope * [[(scale / batch) ~> scale]]",
        f"{GRADIENT}[elu-quantile-neuron]"),
    "outputs are summed where a mean is due": Mutant(
        "backprop.py", 'scale = [[1 / width if rule.outputs == "mean" else 1.0 ~> 1.0]]',
        f"{GRADIENT}[elu-quantile-neuron]"),
    "the bias is skipped": Mutant("backprop.py", "net = product(belows[-1], weight[[, bias ~> ]])",
        f"{GRADIENT}[elu-quantile-neuron]"),
    "Adam's correction is a step behind": Mutant(
        "maths/optimizers.py", "    root = torch.sqrt(1 - power2[[ ~>  * beta2]])\n", f"{OPTIMIZER}[adam]"),
    "momentum forgets its velocity": Mutant("maths/optimizers.py", "    return velocity, [[velocity ~> grad]]\n",
        "test_optimizers.py::test_networks_train_as_with_one_torch_optimizer_each[momentum-layer]"),
    "weight decay of AdamW passes the gradient": Mutant(
        "maths/optimizers.py", "[[decoupled=True,  ~> ]]weight_decay=1e-2, formulas=ADAMS", f"{OPTIMIZER}[adamw]"),
    "label smoothing spares the target's class": Mutant(
        "maths/losses.py", "each = full * (label_smoothing / [[classes ~> (classes - 1)]])",
        "test_gradient.py::test_each_network_may_have_its_own_loss_hyper_parameter[plain-label_smoothing]"),
    "the softmax is not shifted": Mutant(
        "maths/losses.py", "index, shifted = target[..., None], out[[ - out.amax(-1, keepdim=True) ~> ]]",
        "test_gradient.py::test_no_loss_is_nan_for_logits_of_10000[cross_entropy-float32]"),
    "dropout does not scale the rest": Mutant(
        "engines/block.py", "[[(1 / (1 - chance)) ~> torch.ones_like(chance)]].to(self.loss.dtype)",
        f"{STEP}dropout_uses_the_words_of_the_format_and_scales_the_rest"),
    "dropout drops outs but not deltas": Mutant(
        "backprop.py", "                [[delta *= masks[number - 1] ~> pass]]\n",
        f"{STEP}dropout_uses_the_words_of_the_format_and_scales_the_rest"),
    "the norm is clipped layer by layer": Mutant("engines/block.py",
        "[[self.clip_norms(gradients) ~> [self.clip_norms({each: gradients[each]}) for each in gradients] ]]",
        f"{STEP}a_step_of_sgd_subtracts_the_gradient_of_loss_and_penalties_that_is_clipped"),
    "a frozen bias is trained": Mutant("engines/block.py", "if [[self.spec.train_bias ~> True]]:",
        f"{STEP}frozen_biases_do_not_change_with_any_optimizer[neuron-adamw]"),
    "a frozen bias has a gradient": Mutant("backprop.py", "    if [[not spec.train_bias ~> False]]:\n",
        f"{GRADIENT}[relu-huber-neuron-frozen]"),
    "padding's gradients leak into clipped norms": Mutant(
        "engines/block.py", "[[grad_weight[:, self.spec.widths[number] :].zero_() ~> pass]]",
        f"{STEP}a_step_of_sgd_subtracts_the_gradient_of_loss_and_penalties_that_is_clipped"),
    "sample weights are not normalised": Mutant(
        "backprop.py", "share = scale / [[(total + (total == 0)) ~> batch * torch.ones_like(total)]]",
        "test_gradient.py::test_sample_weights_make_a_weighted_mean[huber]"),
    "the schedule is a step ahead": Mutant("engines/block.py", "step = self.now[:, None].double()[[ ~>  + 1]]",
        "test_schedules.py::test_the_engine_uses_the_rate_of_each_networks_step"),
    "the cosine ends a step early": Mutant(
        "maths/schedules.py", "done = torch.clamp(step / torch.clamp(total[[ ~>  - 1]], min=1), max=1)",
        "test_schedules.py::test_a_schedule_is_torchs_for_50_steps[cosine-plain]"),
    "all networks draw the same order": Mutant(
        "samples/data.py", 'keyed = ids[[ ~> [:1].expand_as(ids)]] if shuffle == "network"',
        f"{ALONE}[2-2-2-sgd-network]"),
    "a network that diverged keeps its step": Mutant(
        "engines/block.py", 'if [[good.device.type != "cpu" or not good.all() ~> False]]:',
        "test_divergence.py::test_slots_and_columns_go_back_with_the_row[adam]"),
    "one network's NaN reaches the sum of all": Mutant("engines/block.py", "self.fault + loss[[ ~> .sum()]] * 0",
        "test_divergence.py::test_a_non_finite_network_does_not_affect_its_neighbours[64-32-10-sgd-nan]"),
    "a lone network is not doubled": Mutant("engines/block.py",
        "tensor[:count] [[if count > 1 else torch.cat((tensor[:1], tensor[:1])) ~> * (1 + 2.0**-18 * (count == 1))]]",
        f"{ALONE}[5-33-2-amsgrad-none]"),
    "a product depends on how many networks there are": Mutant(
        "backprop.py", "net = product(belows[-1], weight, bias)[[ ~>  * (1 + 2.0**-20 * (len(weight) > 4))]]",
        f"{ALONE}[2-2-2-sgd-network]"),
    "a norm depends on how many networks there are": Mutant(
        "engines/block.py", "row_sums(grad.flatten(1) * grad.flatten(1)[[ ~>  * (1 + 2.0**-20 * (len(grad) > 4))]])",
        "test_independence_drawn.py::test_a_network_is_independent_with_drawn_settings[3-eager]"),
    "an update depends on how many networks there are": Mutant("maths/optimizers.py",
        "param.addcmul_(rates.direction, direction[[ ~>  * (1 + 2.0**-20 * (len(param) > 4))]], value=-1)",
        f"{ALONE}[2-2-2-sgd-network]"),
    "a network is put back in part": Mutant("state.py", "mine[[.index_copy_(0, part, theirs) ~> [part] = theirs]]",
        "test_memory_runs_out.py::test_memory_may_run_out_at_any_operation_without_a_network_half_written[eager]"),
}  # fmt: skip
QUICK = [*MUTANTS][::8]


def copy(folder: Path) -> None:
    """The package and its tests, to be broken there."""
    for name in ("gpubp", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)


def process(folder: Path, tests: Sequence[str]) -> None:
    """In a process of its own: pytest on the copy in `folder`, which is what it imports; what it prints goes to
    `folder`/log."""
    with open(folder / "log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--basetemp=tmp", "--tb=line", "-m", "", *tests]))


def run(folder: Path, *tests: str) -> tuple[int | None, list[str], str]:
    """pytest's exit code, the tests that failed, and what it printed."""
    own = APART.Process(target=process, args=(folder, [test if test == "-x" else f"tests/{test}" for test in tests]))
    own.start()
    own.join(300)
    own.kill()
    own.join()
    printed = (folder / "log").read_text()
    return own.exitcode, re.findall(r"^FAILED tests/(\S+)", printed, re.MULTILINE), printed


def test_without_a_mistake_named_tests_pass(tmp_path: Path) -> None:
    copy(tmp_path)
    (tmp_path / "tests" / "test_copy.py").write_text(
        "import pathlib, gpubp\n\ndef test_the_copy_is_what_is_imported() -> None:\n"
        "    assert pathlib.Path(gpubp.__file__).parents[1] == pathlib.Path(__file__).parents[1]\n"
    )
    code, failed, printed = run(tmp_path, "test_copy.py", *(MUTANTS[name].test for name in QUICK[::4]))
    assert (code, failed) == (0, []), printed


@pytest.mark.parametrize("name", MUTANTS)
def test_the_planted_text_stands_in_the_source_exactly_once(name: str) -> None:
    text = (ROOT / "gpubp" / MUTANTS[name].file).read_text()
    assert text.count(planted(MUTANTS[name].text)[0]) == 1


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in MUTANTS]
)
def test_a_planted_mistake_is_found_by_the_test_that_names_it(name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    copy(tmp_path)
    source = tmp_path / "gpubp" / mutant.file
    source.write_text(source.read_text().replace(*planted(mutant.text)))
    code, failed, printed = run(tmp_path, "-x", mutant.test)
    assert code == 1, printed
    assert len(failed) == 1
    assert failed[0] == mutant.test or failed[0].startswith(mutant.test + "["), printed
