"""What the operator costs, measured: one file per table of `anystride bench`, and what they share."""
