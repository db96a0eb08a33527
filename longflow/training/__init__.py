"""Train any method: the loop, splits, loading of samples, validation, checkpoints, records."""
