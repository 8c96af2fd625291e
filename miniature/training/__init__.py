"""How the miniature was trained: autoencoder, text encoders with the UNet, ControlNets and LoRAs."""
