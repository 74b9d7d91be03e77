"""Where a bundle is in a registry: `oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from services.inference.bundle import BundleError

PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"  # of a repository, as the OCI distribution specification has it
PATTERN = re.compile(
    r"oci://(?P<registry>(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?)"
    rf"/(?P<repository>{PART}(?:/{PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Reference:
    """A repository, with a tag, a digest or both; with both, the tag must name that digest."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag, digest = self.tag and f":{self.tag}", self.digest and f"@{self.digest}"
        return f"oci://{self.registry}/{self.repository}{tag}{digest}"

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine."""
        host = self.registry.rpartition(":")[0] if re.search(r":[0-9]+$", self.registry) else self.registry
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return host == "localhost"


def parse(text: str) -> Reference:
    """The reference that a text is.

    Raises:
        BundleError: it is none.
    """
    found = PATTERN.fullmatch(text)
    if found is None:
        raise BundleError(f"{text!r} is not of the form oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], in lower case")
    return Reference(found["registry"], found["repository"], found["tag"] or "", found["digest"] or "")
