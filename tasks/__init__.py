"""Tasks: one Prefect task a file, which fetches the services and makes one call."""
