"""Sandbox: an embedded Kubernetes for newcomers and for tests."""
