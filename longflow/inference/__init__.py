"""From a trained model and scans to predictions, for any task: selection, sliding window, folders."""
