"""What all rooms must agree on: tensors, Triton models, configuration, the LoRA registry.

It imports no other room.
"""
