"""One run, from its configuration to its record, and many runs: in processes of this machine, or on a cluster."""
