"""The generation service."""

from services.protocol.bento import make_service

Generation = make_service("Generation", ["generation"], "Draws images.")
