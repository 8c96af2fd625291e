"""A request: its values, and how they are read and checked."""
