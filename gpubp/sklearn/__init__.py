"""gpubp behind scikit-learn's interface: estimators, and a search over them. Needs scikit-learn 1.6 or newer.

`gpubp` itself does not import this package: `from gpubp.sklearn import PopulationClassifier`.
"""

try:
    import sklearn as _  # noqa: F401
except ImportError:
    raise ImportError('gpubp.sklearn needs scikit-learn 1.6 or newer: pip install "gpubp[sklearn]"') from None

from .mlp import MLPClassifier, MLPRegressor
from .population import PopulationClassifier, PopulationRegressor
from .search import PopulationSearchCV

__all__ = ["MLPClassifier", "MLPRegressor", "PopulationClassifier", "PopulationRegressor", "PopulationSearchCV"]
