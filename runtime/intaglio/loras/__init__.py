"""LoRAs: files read, layers computed, sets stored and applied in a running server."""
