"""A request becomes tensors: tokens, noise, solver table, control maps."""
