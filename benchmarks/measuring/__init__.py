"""What every benchmark shares: the case, results files, ballast."""
