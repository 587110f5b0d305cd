"""Drills: faults of an installation on one machine, with real servers beside `clm up`."""
