"""Observability: outcome words, log formats and the admin site."""
