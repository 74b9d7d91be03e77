"""The serving side of Duet: torch-free."""

__version__ = "0.1.0"
