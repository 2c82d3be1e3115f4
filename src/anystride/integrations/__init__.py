"""Learned strides in other libraries' training loops; each file needs its library alone."""
