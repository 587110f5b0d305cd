"""Explanations of a model: SHAP values of trees, importance of features."""
