"""Compares this version with an earlier one: `python -m ops.versions COMMIT`."""
