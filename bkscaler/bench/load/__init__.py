"""Load: the clients of a bench for which there is no ready-made tool, as processes of their own."""
