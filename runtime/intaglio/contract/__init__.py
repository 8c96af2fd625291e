"""What all rooms must agree on: tensors, Triton models, configuration, the LoRA registry. Imports no other
room.
"""
