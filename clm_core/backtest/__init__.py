"""Backtest engine, metrics, walk-forward, leak sentinel and tear sheet."""
