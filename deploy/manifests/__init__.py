"""Kubernetes objects as kustomize renders them: what must be true of them, checked before they reach a cluster."""
