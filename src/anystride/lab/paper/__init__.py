"""The paper's tables and figures as grids of runs, each beside the value that was published."""
