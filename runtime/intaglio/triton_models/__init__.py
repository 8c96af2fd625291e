"""What runs inside Triton: the classes that `model.py` of each model names."""
