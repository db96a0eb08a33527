"""The demo: a phantom cohort whose law of motion is known, and the commands run on it."""
