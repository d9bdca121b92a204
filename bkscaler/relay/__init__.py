"""Relay: two joined connections and the bytes between them."""
