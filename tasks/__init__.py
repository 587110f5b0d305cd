"""Tasks: one step of a flow a file: the services fetched, and one call."""
