"""Measurements of quality, orders and speed. Nothing that serves or trains imports it."""
