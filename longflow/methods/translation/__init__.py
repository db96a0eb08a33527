"""Methods that translate a scan into another contrast phase."""
