"""All three services in one process: the embedded default, no Redis needed."""

from services.protocol.bento import make_service

AllInOne = make_service("AllInOne", ["generation", "classification", "anomaly"], "Draws, classifies and scores images.")
