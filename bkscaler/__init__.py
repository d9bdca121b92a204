"""bkscaler: wake a buildkitd StatefulSet for its first client, let it sleep after the last one."""

__version__ = "0.1.0"
