"""What runs the networks: one interface, ONNX Runtime and TensorRT behind it."""
