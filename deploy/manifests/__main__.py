"""`python -m deploy.manifests OVERLAY`: print the objects of an overlay, or what is wrong with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from deploy.manifests.checks import problems
from deploy.manifests.render import RenderError, located, render


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.manifests", description=__doc__)
    parser.add_argument("overlay", type=Path, help="folder of a kustomization")
    overlay: Path = parser.parse_args(arguments).overlay
    try:
        text = render(overlay)
    except RenderError as error:
        print(error, file=sys.stderr)
        return 1
    objects = [item for item in yaml.safe_load_all(text) if item]
    found = located(overlay, objects, problems(objects))
    for check, lines in found.items():
        for line in lines:
            print(f"{check}: {line}", file=sys.stderr)
    if found:
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
