"""Weights: found, loaded, drawn from a seed, fused with LoRAs."""
