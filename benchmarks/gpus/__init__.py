"""What LoRAs cost: swapped in a running server, fused into a build, beside the matrices."""
