"""What this machine's card computes, measured with small engines, and how long an image would take on it."""
