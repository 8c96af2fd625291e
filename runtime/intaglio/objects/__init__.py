"""Objects in pictures: found by a network, written as labels, drawn, and judged by rules."""
