"""The parts of the command line that need no training: models, serve, predict."""
