"""What every benchmark shares: cases, parts and their results, times, memory, and figures to be held to."""
