"""LoRAs of a running server: files, sets, versions, and the swap from one set to another."""
