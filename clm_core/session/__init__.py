"""Python API: a home opened by a program or a notebook, with results as tables and pages."""
