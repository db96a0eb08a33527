"""The commands: one module each with arguments, messages and exit codes; the work is done by the other rooms."""
