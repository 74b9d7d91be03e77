"""All three services in one process: the embedded default, no Redis needed."""

from services.protocol.bento import make_service
from services.protocol.services import PROTOCOLS

AllInOne = make_service("AllInOne", list(PROTOCOLS), "Draws, classifies and scores images.")
