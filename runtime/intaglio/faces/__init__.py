"""Faces: found in a picture, aligned, embedded, and compared with the characters that are enrolled."""
