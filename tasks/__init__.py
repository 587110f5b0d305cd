"""Tasks: one step of a flow a file, which fetches the services and makes one call."""
