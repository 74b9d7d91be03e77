"""The anomaly service."""

from services.protocol.bento import make_service

Anomaly = make_service("Anomaly", ["anomaly"], "Scores how unusual images are.")
