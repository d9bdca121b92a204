"""Scaling: who needs capacity, what to do about it, and doing it."""
