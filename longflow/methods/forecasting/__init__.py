"""Methods that forecast a scan at any time from earlier scans. A module is a method, named as on the command line."""
