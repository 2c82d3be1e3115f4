"""Sources of labelled images; every source ends up as tensors in memory (`anystride.lab.data.module`)."""
