"""scikit-learn's data sets, read from its files, because importing it takes longer than many trainings.

Numbers, names and order are those of sklearn.datasets.load_...(), for diabetes with scaled=False. If the installed
scikit-learn has different files, it is imported instead.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..system.arrays import Array

CELL = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points",
        "symmetry", "fractal dimension")  # fmt: skip
INPUTS: dict[str, tuple[str, ...]] = {
    "digits": tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8)),
    "iris": ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"),
    "wine": ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids",
             "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines",
             "proline"),
    "breast_cancer": tuple(form.format(each) for form in ("mean {}", "{} error", "worst {}") for each in CELL),
    "diabetes": ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
}  # fmt: skip
SAMPLES = {"digits": 1797, "iris": 150, "wine": 178, "breast_cancer": 569, "diabetes": 442}


def columns(name: str) -> dict[str, Array]:
    """The inputs by name, and "target": (M,) each; classes by name if they have names.

    Raises DataError if scikit-learn is not installed.
    """
    spec = find_spec("sklearn")
    if spec is None:
        raise DataError(f'data {name!r}: scikit-learn is not installed; pip install "gpubp[data]"')
    try:
        inputs, target = _read(name, Path((spec.submodule_search_locations or [""])[0], "datasets", "data"))
        known = inputs.shape == (SAMPLES[name], len(INPUTS[name])) and len(target) == SAMPLES[name]
    except (OSError, ValueError, IndexError):
        known = False
    if not known:
        return _imported(name)
    return {**dict(zip(INPUTS[name], inputs.T)), "target": target}


def _read(name: str, folder: Path) -> tuple[Array, Array]:
    """Inputs (M, I) and target (M,) from scikit-learn's files."""
    if name == "diabetes":
        return np.loadtxt(folder / "diabetes_data_raw.csv.gz"), np.loadtxt(folder / "diabetes_target.csv.gz")
    if name == "digits":
        numbers = np.loadtxt(folder / "digits.csv.gz", delimiter=",")
        return numbers[:, :-1], numbers[:, -1].astype(np.int64)
    path = folder / ("wine_data.csv" if name == "wine" else f"{name}.csv")
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    classes = np.array(head.split(",")[2:])  # after the numbers of samples and inputs
    numbers = np.loadtxt(rows, delimiter=",")
    return numbers[:, :-1], classes[numbers[:, -1].astype(np.int64)]


def _imported(name: str) -> dict[str, Array]:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    target = bunch.target_names[bunch.target] if "target_names" in bunch else bunch.target
    return {**dict(zip(map(str, bunch.feature_names), bunch.data.T)), "target": target}
