"""Drifted features among many features and days, with a bounded share of false discoveries.

A watch with thirty features and a month of days makes nine hundred tests: at a level of 5 % each, forty-five
are positive by chance. The rule of Benjamini and Yekutieli (2001) bounds the expected share of false ones
among the features reported, however features and days depend on each other: windows of neighbouring days
share most of their bars, and features of a market move together.
"""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from clm_core.domain.drift_history import DriftMeasurement

FALSE_DISCOVERIES = 0.05
"""Expected share of false discoveries among the reported ones, at most."""
FAMILY = timedelta(days=30)
"""Days of measurements that are tested together."""


def discoveries(
    measurements: Sequence[DriftMeasurement], today: date, tests: int | None = None
) -> tuple[str, ...]:
    """Names measured on a day that have drifted, the smallest p-value first.

    Args:
        measurements: measurements of one version; those of the `FAMILY` up to the day count. Those with a
            p-value above `FALSE_DISCOVERIES`, never a discovery, may be left out.
        tests: number of the measurements of the family; by default those given.
    """
    from scipy.stats import false_discovery_control

    family = [each for each in measurements if today - FAMILY < each.day <= today]
    if not family:
        return ()
    left_out = np.ones(max((tests or 0) - len(family), 0))
    p_values = np.concatenate([[each.p_value for each in family], left_out])
    adjusted = false_discovery_control(p_values, method="by")[: len(family)]
    drifted = [
        (value, each.name)
        for value, each in zip(adjusted.tolist(), family, strict=True)
        if each.day == today and value <= FALSE_DISCOVERIES
    ]
    return tuple(name for _, name in sorted(drifted))
