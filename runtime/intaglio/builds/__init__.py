"""A build on disk: its manifest, who holds it, whether its files are whole."""
