"""Old name of `hold_signals`, for plug-ins copied from the example of release 0.1.0; kept for one release."""

import warnings

from clm_core.market.signals import hold_signals

held = hold_signals

warnings.warn(
    "clm_core.models.boosting.held is clm_core.market.signals.hold_signals now: change the import",
    DeprecationWarning,
    stacklevel=2,
)
