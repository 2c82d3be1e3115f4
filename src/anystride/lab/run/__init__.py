"""One run, from its configuration to its record, and the ways to make many: here, in processes, on a cluster."""
