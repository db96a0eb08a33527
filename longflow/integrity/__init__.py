"""The integrity check: every problem of a dataset that can be found before training, said before training."""
