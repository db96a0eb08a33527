"""Forecasts against acquired scans: metrics, comparison with the baselines, choice of the best model."""
