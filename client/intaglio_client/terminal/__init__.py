"""A request on a terminal: a bar that moves, and previews in the terminal's own graphics."""
