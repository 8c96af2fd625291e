"""Filters judge what was drawn: a picture in, scores and a verdict out."""
