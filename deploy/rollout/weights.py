"""The weights of an HTTPRoute in an overlay: read, and changed in place, with comments and layout kept."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

CANARY = "-canary"  # ends the name of the canary's Service


class WeightError(Exception):
    """The overlay has no such weights; the message says what it should have."""


@dataclass(frozen=True)
class Weights:
    """Where a route's weights stand in a file.

    Attributes:
        path: the file.
        text: its content.
        stable: the positions of the stable one's weight in the text, one for each rule.
        canary: those of the canary.
    """

    path: Path
    text: str
    stable: tuple[slice, ...]
    canary: tuple[slice, ...]

    @property
    def canary_percent(self) -> float:
        """The share of the requests that go to the canary."""
        stable, canary = int(self.text[self.stable[0]]), int(self.text[self.canary[0]])
        return 100 * canary / (stable + canary) if stable + canary else 0.0

    def moved(self, percent: int) -> str:
        """The text with this share for the canary."""
        new = {place.start: (place, str(100 - percent)) for place in self.stable}
        new |= {place.start: (place, str(percent)) for place in self.canary}
        text = self.text
        for start in sorted(new, reverse=True):
            place, value = new[start]
            text = text[: place.start] + value + text[place.stop :]
        return text

    def diff(self, text: str) -> str:
        """The change to `text`, as `git diff` shows it."""
        name = str(self.path)
        lines = difflib.unified_diff(self.text.splitlines(True), text.splitlines(True), f"a/{name}", f"b/{name}")
        return "".join(lines)


def find(overlay: Path, route: str) -> Weights:
    """The weights of the HTTPRoute `route`, whose backends are the Services `route` and `route`-canary.

    They stand in one file of the overlay, a patch or the route itself.

    Raises:
        WeightError: no file of the overlay has them, or several have.
    """
    try:
        found = [weights for path in sorted(overlay.rglob("*.y*ml")) if (weights := _in_file(path, route)) is not None]
    except (OSError, yaml.YAMLError) as error:
        raise WeightError(f"{overlay}: cannot be read as YAML: {error}") from None
    if len(found) != 1:
        raise WeightError(
            f"{overlay}: {len(found)} of its files have backendRefs {route} and {route}{CANARY}, each with a weight; "
            "exactly one must"
        )
    return found[0]


def _in_file(path: Path, route: str) -> Weights | None:
    text = path.read_text()
    places: dict[str, list[slice]] = {route: [], route + CANARY: []}
    for document in yaml.compose_all(text, yaml.SafeLoader):
        for members in _mappings(document):
            name, weight = members.get("name"), members.get("weight")
            if isinstance(name, yaml.ScalarNode) and isinstance(weight, yaml.ScalarNode) and name.value in places:
                places[name.value].append(slice(weight.start_mark.index, weight.end_mark.index))
    stable, canary = (tuple(places[name]) for name in (route, route + CANARY))
    return Weights(path, text, stable, canary) if stable and len(stable) == len(canary) else None


def _mappings(node: yaml.Node | None) -> Iterator[dict[str, yaml.Node]]:
    """The members of every mapping below a node, and of the node itself."""
    if isinstance(node, yaml.MappingNode):
        yield {str(key.value): value for key, value in node.value}
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value)
