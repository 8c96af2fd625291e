"""Measurements of a deployment on the machine at hand; results are committed as JSON in results/."""
