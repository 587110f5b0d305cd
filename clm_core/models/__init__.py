"""The model contract and every kind of model: trees, networks, policies, plug-ins, ensembles; bundles."""
