"""Sequences of steps of the flows that commands run as well, in a process without Prefect."""
