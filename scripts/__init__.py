"""Maintenance of the repository itself."""
