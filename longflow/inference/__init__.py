"""From a trained model and a subject's scans to a forecast: selection, sliding window, folders, Python interface."""
