"""`python -m training` is `duet`."""

from training.cli import main

main()
