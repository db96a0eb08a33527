"""What a dataset is like, in space, time and intensity: numbers without decisions."""
