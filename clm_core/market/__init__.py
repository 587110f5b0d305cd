"""Bars, their validation and sources; features, labels, splits, drift."""
