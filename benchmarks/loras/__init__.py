"""What LoRAs cost in a running server."""
