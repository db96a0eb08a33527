"""Engines that compare predictions with references: metrics, summaries over subjects, choice of the best model."""
