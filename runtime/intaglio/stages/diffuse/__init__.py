"""Tensors become latents and pixels: text encoders, ControlNets, UNet, VAE."""
