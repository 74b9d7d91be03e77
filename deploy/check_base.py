"""Refuse a base image that the images of Duet must not grow on; the Containerfile runs it in the base."""

import shutil
import sys
import sysconfig

UNWANTED = ("pip", "pip3", "cc", "gcc", "apt-get", "apk", "dnf")  # they would be in every image that is built on it
BYTECODE = "3.11"  # the Python whose bytecode and wheels the images hold


def main() -> None:
    version = sysconfig.get_python_version()
    if version != BYTECODE:
        sys.exit(f"BASE has Python {version}, and the images hold wheels for {BYTECODE}; choose a base with {BYTECODE}")
    found = [program for program in UNWANTED if shutil.which(program)]
    if found:
        sys.exit(f"BASE holds {', '.join(found)}; choose a base without, such as distroless's python3-debian12")


main()
