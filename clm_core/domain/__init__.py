"""Frozen records and enums that every room shares; errors and fault points."""
