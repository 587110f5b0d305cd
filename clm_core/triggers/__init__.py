"""Requests to retrain: intake, inbox, messages, Prefect events, dispatch."""
