"""Searching for better training parameters."""
