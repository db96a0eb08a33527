"""Forecast the scan of a subject at a later time from its earlier scans."""
