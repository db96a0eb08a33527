"""Training: one loop for every method, and what it needs: splits, samples, augmentation, validation, logs."""
