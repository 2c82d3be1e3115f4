"""Measurements of what the operator costs: one file per table of `anystride bench`, and what the tables share."""
