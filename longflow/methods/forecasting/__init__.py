"""Forecasting: a scan at any time from earlier scans. A module here is a method, named as on the command line."""
