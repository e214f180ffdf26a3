"""Damages and other faults, and how the binaries take them; see `experiments.torture`."""
