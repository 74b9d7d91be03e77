"""An overlay with nothing but a route, whose weights are moved."""

from pathlib import Path

ROUTE = "duet-classification"
ROUTE_FILE = f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {ROUTE}
spec:
  rules:
    - backendRefs: # the weights are moved by `python -m deploy.rollout`
        - {{ name: {ROUTE}, port: 3000, weight: 100 }}
        - {{ name: {ROUTE}-canary, port: 3000, weight: 0 }}
"""


def write(folder: Path) -> Path:
    """Write the overlay into a new folder."""
    folder.mkdir()
    (folder / "kustomization.yaml").write_text("resources: [route.yaml]\n")
    (folder / "route.yaml").write_text(ROUTE_FILE)
    return folder
