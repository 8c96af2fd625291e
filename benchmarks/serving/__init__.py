"""What `intaglio bench` measured on a card, beside MLPerf's published results."""
