"""Genetic search: genome, operators, generations; NSGA-II and the objectives of rule strategies."""
