"""Kube: the Kubernetes API as the product uses it."""
