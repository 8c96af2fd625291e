"""The mathematics of sampling: pure functions of arrays."""
