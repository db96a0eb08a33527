"""The commands: a module each with its ``parser()``, ``work(options)`` and ``main()``; other rooms do the work."""
