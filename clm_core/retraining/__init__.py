"""The retrain: jobs, steps, training process, gate case, pages, ensembles, reproduction."""
