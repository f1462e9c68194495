"""Where work runs. Knows nothing of emotion: maps a function over items."""
