"""TensorRT on an NVIDIA card: `tensorrt_rtx` and `tensorrt` have one Python API, so one adapter serves both.

All engines run one after another on one stream, and their contexts share one block of memory for activations.
So the card holds the largest activation, not the sum of all.
"""
