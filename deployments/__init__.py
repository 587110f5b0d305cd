"""Deployments: schedules and triggers of the flows, and the supervised stack of `clm up`."""
