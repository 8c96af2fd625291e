"""The tables of docs/ that are written from the code. `python -m reference` writes them into their pages."""
