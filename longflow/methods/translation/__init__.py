"""Methods of the task ``translate``."""
