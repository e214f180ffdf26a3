"""The suites of `experiments.benchmark`; they are imported after the flags were checked."""
