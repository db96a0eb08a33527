"""Raw datasets: reading and writing scans and tables, series of scans, the integrity check."""
