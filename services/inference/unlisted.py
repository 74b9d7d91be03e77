"""Files in the folder of a bundle that its manifest does not list."""

from __future__ import annotations

import os
from pathlib import Path

from services.inference.bundle import BESIDE, MANIFEST, Bundle


def unlisted(bundle: Bundle) -> list[str]:
    """Files in the folder of a bundle that its manifest does not list."""
    known = {MANIFEST, *BESIDE, *bundle.manifest.files}
    found = []
    for folder, below, names in os.walk(bundle.path):
        paths = [Path(folder, name) for name in names] + [p for name in below if (p := Path(folder, name)).is_symlink()]
        found += [path.relative_to(bundle.path).as_posix() for path in paths]
    return sorted(set(found) - known)
