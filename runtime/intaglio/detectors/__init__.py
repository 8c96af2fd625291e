"""Detectors: a photograph -> a control map. They run on ONNX Runtime and OpenCV, without torch."""
