"""The networks of the paper, with the downsampler as an argument."""
