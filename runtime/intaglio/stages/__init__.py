"""The three stages of a request, each a plain class over arrays: preprocess, diffuse, postprocess."""
