"""The miniature: a procedural world and the trained 1/200-size SDXL that has learned it."""
