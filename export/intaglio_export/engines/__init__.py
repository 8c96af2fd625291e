"""Engines: compiled for a platform and compared with PyTorch."""
