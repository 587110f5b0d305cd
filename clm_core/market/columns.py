"""Names of the columns of bars."""

import numpy as np
from numpy.typing import NDArray

FIELDS = ("open", "high", "low", "close", "volume")

Floats = NDArray[np.float64]
