"""The classification service."""

from services.protocol.bento import make_service

Classification = make_service("Classification", ["classification"], "Classifies images.")
