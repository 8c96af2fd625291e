"""Weights to engines: load, fuse LoRAs, export ONNX, compile, verify, write the model repository."""
