"""A build on disk: its manifest, the digests of its files, and who holds it."""
