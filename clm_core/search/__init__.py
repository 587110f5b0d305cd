"""Tuning and evolution of training parameters: trial evaluator, Optuna study, candidates, reports."""
