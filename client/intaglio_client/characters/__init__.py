"""`intaglio characters`: the faces of characters, enrolled, compared and forgotten."""
