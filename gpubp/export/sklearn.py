"""scikit-learn's estimators of networks, and rows of its fitted MLPs.

estimator() is a Pipeline from raw samples, a frame with the columns of training or an array of them in their order, to
MLPClassifier or MLPRegressor; of several networks a VotingClassifier or VotingRegressor, which takes the mean.
scikit-learn fits them on stand-in samples, so that they have all that it keeps from a fit; then they get the networks'
numbers. Further training is scikit-learn's: with its loss, and with biases even if there were none.

Probabilities of several columns are those of an MLPClassifier for samples with several labels, 1 for labels that a
sample has; of one column, those of the classes 0 and 1.

The last layer's weights undo the scaling of targets, and the two outputs of a network of two classes become one, their
difference: in both cases weights are float64. Refused, by name: what an MLP of scikit-learn does not have.
"""

import itertools
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError, SpecError
from ..maths.spec import NetworkSpec
from ..raw.arrow import are_truths, as_texts
from ..raw.columns import Column
from ..raw.preparation import Label
from .members import Array, Group, Members
from .modules import alike, check_several

try:
    from sklearn.base import BaseEstimator
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import FunctionTransformer, LabelEncoder, OneHotEncoder, StandardScaler
    from sklearn.utils import Bunch
except ModuleNotFoundError:
    raise ConfigError('estimators need scikit-learn: pip install "gpubp[sklearn]"') from None

ACTIVATIONS = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}
LOSSES = {  # by the activation of the output, which in scikit-learn belongs to the loss
    "softmax": "cross_entropy",
    "logistic": "binary_cross_entropy",
    "identity": "half_squared_error",
    "exp": "poisson",
}


def estimator(members: Members) -> Any:
    """The fitted estimator of one network, or of several together. Raises SpecError and ConfigError for what
    scikit-learn does not have."""
    members.check_entities()
    networks: dict[int, Any] = {}
    for group in members.groups:
        for at, place in enumerate(group.place.tolist()):
            steps = [("network", _mlp(members, group, at))]
            if members.columns:
                steps.insert(0, ("inputs", _inputs(members, place)))
            networks[place] = Pipeline(steps)
    named = [(f"network_{row}", networks[place]) for place, row in enumerate(members.rows)]
    if len(named) == 1:
        return named[0][1]
    labels = _labels(members)
    if not members.classes and not members.flat and members.groups[0].spec.widths[-1] > 1:
        what = "VotingClassifier predicts one label" if labels else "VotingRegressor predicts one number"
        raise SpecError(f"scikit-learn's {what} for a sample: export each network alone")
    voting = VotingClassifier(named, voting="soft") if labels else VotingRegressor(named)
    voting.estimators_, voting.named_estimators_ = [each for _, each in named], Bunch(**dict(named))
    if hasattr(named[0][1], "feature_names_in_"):
        voting.feature_names_in_ = named[0][1].feature_names_in_
    if labels:
        voting.le_ = LabelEncoder().fit(np.array(labels))
        voting.classes_ = voting.le_.classes_
    return voting


def _labels(members: Members) -> tuple[Label, ...]:
    """The classes; for probabilities without labels, 0 and 1, or, with several columns, their numbers."""
    outputs = members.groups[0].spec.widths[-1]
    if members.classes or members.groups[0].link != "sigmoid":
        return members.classes
    return tuple(range(max(2, outputs)))


def _mlp(members: Members, group: Group, at: int) -> Any:
    """The network `at` of a group as MLPClassifier or MLPRegressor."""
    spec, link = group.spec, group.link
    hidden = {*map(str, spec.activations[:-1])} or {"identity"}
    if len(hidden) > 1 or not hidden <= {*ACTIVATIONS}:
        raise SpecError(
            f"hidden {', '.join(sorted(hidden))}: scikit-learn's MLP has one of {', '.join(ACTIVATIONS)} in all layers"
        )
    out = "softmax" if link == "softmax" else {"exp": "exp", "sigmoid": "logistic"}.get(link, link)
    if spec.output != "identity" or out not in LOSSES:
        what = f"output {str(spec.output)!r}, loss {str(spec.loss)!r} and targets that are {members.task}"
        raise SpecError(f"{what}: scikit-learn has no MLP that predicts like that")
    settings: dict[str, Any] = {"hidden_layer_sizes": spec.widths[1:-1], "activation": ACTIVATIONS[hidden.pop()]}
    labels = np.array(_labels(members))
    inputs = np.zeros((max(1, len(labels)), spec.widths[0]))
    if len(labels):
        several = out == "logistic" and spec.widths[-1] > 1  # several labels per sample
        mlp = MLPClassifier(**settings).partial_fit(inputs, np.eye(len(labels)) if several else labels, classes=labels)
    else:
        settings |= {"loss": "poisson"} if out == "exp" else {}
        if "loss" in settings and "loss" not in MLPRegressor().get_params():
            raise SpecError("loss 'poisson': an MLPRegressor of scikit-learn 1.7 or newer expected")
        target = np.zeros((1, spec.widths[-1]))
        mlp = MLPRegressor(**settings).partial_fit(inputs, target[:, 0] if members.flat else target)
    mlp.coefs_, mlp.intercepts_ = _numbers(members, group, at)
    mlp.t_, mlp.n_iter_, mlp.loss_curve_, mlp.loss_, mlp.best_loss_ = 0, 0, [], np.inf, np.inf
    del mlp._optimizer  # it has moments of the stand-in samples; further training makes a new one
    return mlp


def _numbers(members: Members, group: Group, at: int) -> tuple[list[Array], list[Array]]:
    """coefs_ and intercepts_."""
    coefs = [weight[at].copy() for weight, _ in group.layers()]
    intercepts = [
        np.zeros(weight.shape[2], weight.dtype) if bias is None else bias[at, 0].copy()
        for weight, bias in group.layers()
    ]
    scaling = members.scaling_of(group)
    if members.task == "numbers" and scaling is not None:
        offset, factor = (each if each.ndim == 1 else each[at, 0] for each in scaling[2:])
        if (offset != 0).any() or (factor != 1).any():
            coefs, intercepts = ([each.astype(float) for each in part] for part in (coefs, intercepts))
            coefs[-1], intercepts[-1] = coefs[-1] * factor, intercepts[-1] * factor + offset
    if len(members.classes) == 2 and coefs[-1].shape[1] == 2:
        coefs, intercepts = ([each.astype(float) for each in part] for part in (coefs, intercepts))
        coefs[-1], intercepts[-1] = np.diff(coefs[-1]), np.diff(intercepts[-1])
    return coefs, intercepts


def _inputs(members: Members, place: int) -> Any:
    """The transformer of raw samples for a member. It takes the columns of a frame by name, like one fitted on a
    frame."""
    columns = [each.at(int(members.position[place])) for each in members.columns]
    named = any(each.name != f"inputs[{at}]" for at, each in enumerate(columns))  # the names that an .npz gets
    runs, start = [], 0
    for _, run in itertools.groupby(columns, lambda each: each.name if each.numeric else each.categories is not None):
        some = [*run]  # a step that takes numbers is alone: others may change their type
        steps = _numeric(some) if some[0].categories is None else _texts(some)
        if named:
            steps[0].feature_names_in_ = np.array([each.name for each in some], object)
        made = steps[0] if len(steps) == 1 else make_pipeline(*steps)
        runs.append((f"columns_{start}", made, [*range(start, start := start + len(some))]))
    usual = [0.0 if each.categories is None else each.categories[0] for each in columns]
    fitted = ColumnTransformer(runs).fit(np.array([usual], object))
    fitted.transformers_ = [(name, made, places) for name, made, places in runs]
    if named:
        fitted.feature_names_in_ = np.array([each.name for each in columns], object)
    return fitted


def _numeric(columns: Sequence[Column]) -> list[Any]:
    """Steps for columns of numbers: missing ones filled, and scaled."""
    stand_in = np.zeros((1, len(columns)))
    scaler = StandardScaler().fit(stand_in)
    scaler.mean_ = np.array([each.offset for each in columns], float)
    scaler.scale_ = np.array([each.factor for each in columns], float)
    scaler.var_ = scaler.scale_**2
    if all(each.fill is None for each in columns):
        return [scaler]
    imputer = SimpleImputer(keep_empty_features=True).fit(stand_in)
    imputer.statistics_ = np.array([np.nan if each.fill is None else each.fill for each in columns], float)
    return [imputer, scaler]


def _texts(columns: Sequence[Column]) -> list[Any]:
    """Steps for columns of texts: numbers become texts if categories are such texts, else are refused; missing texts
    (None, NaN, pandas.NA) are filled, or refused as NaN if training refused them; one input per category."""
    categories = [np.array(each.categories, object) for each in columns]
    stand_in = np.array([[each[0] for each in categories]], object)
    encoder = OneHotEncoder(categories=categories, handle_unknown="ignore", sparse_output=False).fit(stand_in)
    kinds: list[Any] = [np.nan, None]
    if find_spec("pandas") is not None:
        from pandas import NA

        kinds = [NA]  # fills all three
    truths = {"truths": are_truths(columns[0].categories or ())}
    steps = [_function(as_texts, stand_in, **truths)] if columns[0].numeric else []
    for missing in (*kinds, None):  # the last finds nothing to fill, and refuses NaN
        imputer = SimpleImputer(missing_values=missing, strategy="most_frequent", keep_empty_features=True)
        imputer.fit(stand_in)
        imputer.statistics_ = np.array([np.nan if each.fill is None else each.fill for each in columns], object)
        steps.append(imputer)
    return [*steps, _function(np.vectorize(str.__str__, otypes=[object]), stand_in), encoder]  # it takes only str


def _function(function: Any, stand_in: Array, **named: Any) -> Any:
    """A step that keeps columns' names."""
    return FunctionTransformer(function, feature_names_out="one-to-one", kw_args=named).fit(stand_in)


def rows(estimators: Iterable[Any]) -> tuple[NetworkSpec, Tensor]:
    """Fitted MLPs of one topology: their specification and rows (N, P). Raises SpecError for other estimators."""
    if isinstance(estimators, BaseEstimator):
        raise SpecError(f"from_estimators takes several: [estimator], not the {type(estimators).__name__} itself")
    check_several("from_estimators takes several: [estimator]", estimators)
    named = ((f"estimator {place}", each) for place, each in enumerate(estimators))
    return alike("from_estimators", "estimator", ((name, *_row(each, name)) for name, each in named))


def _row(mlp: Any, where: str) -> tuple[NetworkSpec, Tensor]:
    if not isinstance(mlp, (MLPClassifier, MLPRegressor)):
        inside = "; of a Pipeline its last step, pipeline[-1], takes what the steps before make" * hasattr(mlp, "steps")
        inside += "; the networks of gpubp.sklearn's are model_.populations" * hasattr(mlp, "model_")
        raise SpecError(f"{where} is a {type(mlp).__name__}; sklearn's MLPClassifier or MLPRegressor expected{inside}")
    if not hasattr(mlp, "coefs_"):
        raise SpecError(f"{where}, {type(mlp).__name__}, is not fitted: fit() it first")
    names = {own: name for name, own in ACTIVATIONS.items()}
    if mlp.activation not in names or mlp.out_activation_ not in LOSSES:
        raise SpecError(
            f"{where} has activation {mlp.activation!r} and output {mlp.out_activation_!r}; one of {', '.join(names)}, "
            f"and one of {', '.join(LOSSES)}, expected"
        )
    parts = [np.asarray(each) for both in zip(mlp.coefs_, mlp.intercepts_, strict=True) for each in both]
    widths = (len(parts[0]), *(len(bias) for bias in parts[1::2]))
    spec = NetworkSpec(widths, names[mlp.activation], "identity", LOSSES[mlp.out_activation_])
    shapes = [shape for at in spec.layout for shape in ((at.inputs, at.outputs), (at.outputs,))]
    if [each.shape for each in parts] != shapes:
        raise ShapeError(f"{where}: coefs_ and intercepts_ {[each.shape for each in parts]}; {shapes} expected")
    return spec, torch.from_numpy(np.concatenate([each.ravel() for each in parts]))
