"""Flows: one Prefect flow a file, which reads as a sentence."""
