"""Searches for strategies: objectives, request, definition and result."""

from enum import StrEnum


class Objective(StrEnum):
    """Objectives of a search for strategies; greater is better."""

    SHARPE_RATIO = "sharpe_ratio"
    MAX_DRAWDOWN = "max_drawdown"
    """Largest drawdown, a negative fraction."""
    WIN_RATE = "win_rate"
    PROFIT_FACTOR = "profit_factor"
    SCORE = "score"
    """Score of the gate, 0..100: half Sharpe ratio, 30 % win rate, 20 % profit factor."""
