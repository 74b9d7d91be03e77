"""Bundles to and from an OCI registry. Only the commands use it; a service reads a folder."""
