"""Counting multiply-accumulates of a forward pass."""
