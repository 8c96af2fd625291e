"""What users do with the pose library: list, search, look, add, check."""
