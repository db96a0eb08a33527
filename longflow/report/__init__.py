"""Figures of forecasts and of trainings."""
