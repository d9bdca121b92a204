"""Frontend: accept clients, hold them, and join them to a builder."""
