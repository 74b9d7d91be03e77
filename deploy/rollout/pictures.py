"""Pictures that both versions classify: how often do they differ?"""

import json
import urllib.error
import urllib.request
from pathlib import Path
from uuid import uuid4

from deploy.rollout.evidence import EvidenceError
from deploy.rollout.verdict import Share

TYPES = (".png", ".jpg", ".jpeg")


def changed(url: str, folder: Path, models: tuple[str, str]) -> Share:
    """The share of a folder's pictures to which the two versions, each `NAME:VERSION`, give different classes.

    The pod at `url` serves both. The requests are trials, which it does not count.

    Raises:
        EvidenceError: there is no picture, or the pod does not answer one.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in TYPES]
    if not files:
        raise EvidenceError(f"--pictures {folder}: no PNG or JPEG file is there")
    differing = sum(_class(url, path, models[0]) != _class(url, path, models[1]) for path in files)
    return Share(differing, len(files))


def _class(url: str, path: Path, model: str) -> str:
    boundary = uuid4().hex
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="picture"\r\n\r\n'
    )
    body = parts.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "X-Request-Purpose": "trial"}
    request = urllib.request.Request(f"{url.rstrip('/')}/classify", body, headers)  # noqa: S310  # the caller's address
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return str(json.load(answer)["predictions"][0]["label"])
    except urllib.error.HTTPError as error:
        raise EvidenceError(f"{path}: {model} at {url} answers {error.code}: {error.read().decode()[:200]}") from None
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{path}: {model} at {url}: {error}") from None
