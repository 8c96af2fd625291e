"""Pictures: decoded from what clients send, encoded for the answer, drawn from poses."""
