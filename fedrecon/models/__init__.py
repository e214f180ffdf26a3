"""Models of recommenders, each split into a global and a local part (see `split_model`)."""
