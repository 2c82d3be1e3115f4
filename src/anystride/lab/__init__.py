"""Experiments with learned strides; needs the extra `lab` (`pip install 'anystride[lab]'`)."""
