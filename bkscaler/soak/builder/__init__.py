"""The builder of a soak, a program of its own."""
