"""Skill of a forecast against a constant, on the rows left out of a fit."""

import math

import numpy as np

from clm_core.market.bars import Floats


def skill_metrics(losses: Floats, of_constant: Floats, independent: float) -> dict[str, float]:
    """Training metrics `skill`, 1 - mean loss / mean loss of the constant, and `skill_error`.

    The standard error is that of the mean difference of the losses over the loss of the constant. Labels that
    overlap share their outcome, so the rows count as the number of labels without overlap.

    Args:
        losses: loss of the forecast, shape (n_rows,).
        of_constant: loss of the constant on the same rows, shape (n_rows,).
        independent: number of labels without overlap that tell as much as the rows, at least 1.

    Returns:
        No metrics where the constant has no loss: nothing can be better.
    """
    scale = float(np.mean(of_constant))
    if not scale > 0:
        return {}
    gain = of_constant - losses
    return {
        "skill": float(np.mean(gain)) / scale,
        "skill_error": float(np.std(gain)) / math.sqrt(max(independent, 1.0)) / scale,
    }
