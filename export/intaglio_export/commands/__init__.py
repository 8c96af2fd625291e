"""`intaglio build` and `intaglio loras`."""
