"""A client of one repository, by the OCI distribution specification 1.1."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from services.delivery import credentials
from services.delivery.reference import Reference

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ACCEPTED = (
    INDEX,
    MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MANIFEST_BYTES = 4 * 2**20  # the specification's bound
CHUNK_BYTES = 2**18
SECONDS = httpx.Timeout(30.0, connect=10.0)  # of silence
PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')

Content = Callable[[], Iterator[bytes]]
Advance = Callable[[int], object]


class DeliveryError(Exception):
    """A registry is away, refuses, or gives something else than it was asked for; one sentence with the remedy."""


class Repository:
    """A connection to the repository of a reference. It logs in when it is asked to.

    Args:
        reference: names registry and repository.
        plain_http: no TLS; a registry on this machine never has it.
    """

    def __init__(self, reference: Reference, *, plain_http: bool = False) -> None:
        self.reference = reference
        self._secure = not (plain_http or reference.loopback)
        scheme = "https" if self._secure else "http"
        self._base = f"{scheme}://{reference.registry}/v2/{reference.repository}"
        self._client = httpx.Client(timeout=SECONDS, follow_redirects=True)
        self._authorization = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        with self._asked("HEAD", f"{self._base}/blobs/{digest}", (200, 404)) as answer:
            return answer.status_code == 200

    def upload(self, digest: str, size: int, content: Content) -> None:
        """Send a blob of that many bytes; `content` begins anew at each call."""
        with self._asked("POST", f"{self._base}/blobs/uploads/", (202,), headers={"Content-Length": "0"}) as answer:
            location = answer.request.url.join(answer.headers.get("Location", ""))
        target = str(location.copy_merge_params({"digest": digest}))
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._asked("PUT", target, (201,), headers=headers, content=content):
            pass

    def tag(self, name: str, media_type: str, document: bytes) -> None:
        """Send a manifest or an index, by its digest or under a tag."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(document))}
        with self._asked("PUT", f"{self._base}/manifests/{name}", (201,), headers, lambda: iter([document])):
            pass

    def manifest(self, name: str) -> tuple[bytes, str]:
        """A manifest or an index, by digest or tag, and its digest, which is computed.

        Raises:
            DeliveryError: it is too large, or the registry gives another one than that of the digest.
        """
        url = f"{self._base}/manifests/{name}"
        with self._asked("GET", url, (200,), headers={"Accept": ", ".join(ACCEPTED)}) as answer:
            document = b""
            for chunk in answer.iter_bytes():
                document += chunk
                if len(document) > MANIFEST_BYTES:
                    raise DeliveryError(f"{self.reference}: its manifest has more than {MANIFEST_BYTES} bytes")
        digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
        if name.startswith("sha256:") and name != digest:
            raise DeliveryError(
                f"{self.reference}: the registry gives {digest} for {name}; do not trust it, and push the bundle again"
            )
        return document, digest

    def download(self, digest: str, size: int, target: Path, advance: Advance) -> None:
        """Write a blob to a file.

        Raises:
            DeliveryError: its bytes are others than those of the digest.
        """
        found, got = hashlib.sha256(), 0
        with self._asked("GET", f"{self._base}/blobs/{digest}", (200,)) as answer, target.open("wb") as stream:
            for chunk in answer.iter_raw(CHUNK_BYTES):
                got += len(chunk)
                if got > size:
                    break
                found.update(chunk)
                stream.write(chunk)
                advance(len(chunk))
        if got != size or f"sha256:{found.hexdigest()}" != digest:
            raise DeliveryError(
                f"{self.reference}: the registry gives other bytes for the blob {digest}; push the bundle again"
            )

    @contextmanager
    def _asked(
        self,
        method: str,
        url: str,
        statuses: tuple[int, ...],
        headers: dict[str, str] | None = None,
        content: Content | None = None,
    ) -> Iterator[httpx.Response]:
        """The answer to a request, with one of these statuses; its body is not read yet."""
        try:
            answer = self._send(method, url, headers or {}, content)
            if answer.status_code == 401:
                self._log_in(answer)
                answer = self._send(method, url, headers or {}, content)
            try:
                if answer.status_code not in statuses:
                    raise DeliveryError(self._refusal(answer))
                yield answer
            finally:
                answer.close()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            hint = "; a registry without TLS wants --plain-http" if self._secure and "SSL" in str(error) else ""
            raise DeliveryError(
                f"{self.reference.registry}: the registry does not answer ({error or type(error).__name__}){hint}; "
                "check the address, and that it runs"
            ) from None

    def _send(self, method: str, url: str, headers: dict[str, str], content: Content | None) -> httpx.Response:
        same = httpx.URL(url).host == httpx.URL(self._base).host  # an upload may go elsewhere
        login = {"Authorization": self._authorization} if self._authorization and same else {}
        request = self._client.build_request(
            method, url, headers={**headers, **login}, content=content() if content else None
        )
        answer = self._client.send(request, stream=True)
        if answer.status_code == 401 or answer.is_error:
            answer.read()
        return answer

    def _log_in(self, refused: httpx.Response) -> None:
        """Answer a challenge: by user and password, or by a token of the service that the registry names."""
        try:
            known = credentials.find(self.reference.registry, self.reference.repository)
        except ValueError as error:
            raise DeliveryError(str(error)) from None
        scheme, _, rest = refused.headers.get("WWW-Authenticate", "").partition(" ")
        if scheme.lower() == "basic" and known.user:
            pair = base64.b64encode(f"{known.user}:{known.password}".encode()).decode()
            self._authorization = f"Basic {pair}"
        elif scheme.lower() == "bearer":
            asked = dict(PARAMETER.findall(rest))
            realm = asked.pop("realm", "")
            if self._secure and not realm.startswith("https://"):
                raise DeliveryError(
                    f"{self.reference.registry}: its tokens are at {realm!r}, without TLS; not sent there"
                )
            asked.setdefault("scope", f"repository:{self.reference.repository}:pull,push")
            asked = {name: value for name, value in asked.items() if name in ("service", "scope")}
            if known.identity:
                form = {**asked, "grant_type": "refresh_token", "refresh_token": known.identity, "client_id": "duet"}
                answer = self._client.post(realm, data=form)
            else:
                pair_or_none = (known.user, known.password) if known.user else None
                answer = self._client.get(realm, params=asked, auth=pair_or_none)
            if answer.status_code != 200:
                raise DeliveryError(self._refusal(answer))
            self._authorization = f"Bearer {_token(answer)}"

    def _refusal(self, answer: httpx.Response) -> str:
        """What a registry's answer means, and the remedy."""
        host = self.reference.registry
        if answer.status_code in (401, 403):
            remedy = f"log in with `podman login {host}` or `docker login {host}` as a user who may"
        elif answer.status_code == 404:
            remedy = "check repository and tag"
        else:
            remedy = "look at the registry's log, or try again"
        return f"{self.reference}: the registry answers {answer.status_code} ({_reason(answer)}); {remedy}"


def _token(answer: httpx.Response) -> str:
    try:
        said = answer.json()
        return str(said.get("token") or said["access_token"])
    except (ValueError, KeyError, AttributeError):
        raise DeliveryError(f"{answer.url.host}: gives no token; look at the log of the registry") from None


def _reason(answer: httpx.Response) -> str:
    """The registry's own words, or the status in words."""
    try:
        first: Any = answer.json()["errors"][0]
        return f"{first['code']}: {first.get('message', '')}"[:200]
    except (ValueError, KeyError, IndexError, TypeError, httpx.StreamError):
        return answer.reason_phrase or "no reason given"
