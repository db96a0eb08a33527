"""The tasks: what is special to each, in one folder a task."""
