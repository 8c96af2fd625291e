"""Side by side with diffusers: speed, memory, agreement, soak."""
