"""Runs: the round loop, the run directory and what it holds."""
