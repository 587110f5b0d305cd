"""Scheduled work of an installation: maintenance, delivery, data ingest, status."""
