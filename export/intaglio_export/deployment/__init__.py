"""The finished deployment folder: manifest, files, Triton's model repository."""
