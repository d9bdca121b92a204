"""Bench: bkscaler and other proxies side by side, measured from outside."""
