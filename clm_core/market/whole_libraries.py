"""Whole libraries for code of others: CLM itself imports XGBoost and LightGBM without scikit-learn.

The interface to scikit-learn takes half a second of imports and 40 MB of memory, and the trees need none of
it.
"""

import sys
from importlib.util import find_spec

BOOSTING = ("xgboost", "lightgbm")
"""Libraries that go on without scikit-learn; XGBRegressor, LGBMRegressor and kin then refuse to work."""


def forget_without_sklearn() -> None:
    """Forget libraries that were imported without scikit-learn, so that the next import has the whole.

    For a process that is about to import a plug-in, own features or a policy store.
    """
    for library in BOOSTING:
        compat = sys.modules.get(f"{library}.compat")
        if compat is None or compat.SKLEARN_INSTALLED or find_spec("sklearn") is None:
            continue
        for name in [name for name in sys.modules if name.partition(".")[0] == library]:
            del sys.modules[name]
