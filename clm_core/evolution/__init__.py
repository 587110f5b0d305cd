"""Genetic search: genome, operators and generations."""
