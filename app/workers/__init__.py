"""Several processes that serve one port: who starts them, and how each hears of it."""
