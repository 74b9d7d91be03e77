"""Which model a request means that names none, and which version a name means: the setting `DUET_DEFAULT_MODELS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from services.inference import registry
from services.inference.bundle import Task
from services.inference.registry import Entry


@dataclass(frozen=True)
class DefaultModels:
    """The setting, read.

    Attributes:
        names: the default models, the preferred one first.
        versions: the version that a name means, for names that are given with one.
    """

    names: Sequence[str]
    versions: Mapping[str, str]

    def means(self, entry: Entry) -> bool:
        """Whether the name alone may mean this version: no other one answers where the setting names a version."""
        return self.versions.get(entry.name, entry.version) == entry.version

    def preferred(self, entries: Sequence[Entry]) -> Sequence[str]:
        """The names of the default models; those of the reference bundles, if nothing else is served."""
        if self.names:
            return self.names
        return registry.REFERENCE_DEFAULTS if registry.all_reference(entries) else ()

    def of_task(self, task: Task, entries: Sequence[Entry]) -> set[str]:
        """The names of the default models of a task; all of its models, if none is preferred."""
        names = {entry.name for entry in entries if entry.task == task}
        return names.intersection(self.preferred(entries)) or names

    def not_selected(self, entries: Sequence[Entry]) -> dict[str, str]:
        """What is wrong with default versions of names that are served, by tag."""
        found = {}
        for name, version in self.versions.items():
            tags = [entry.tag for entry in entries if entry.name == name]
            if tags and (tag := f"{name}:{version}") not in tags:
                found[tag] = (
                    f"DUET_DEFAULT_MODELS: {tag} is not selected; add it to DUET_MODELS, or name one of "
                    f"{', '.join(tags)}"
                )
        return found


@lru_cache
def parse(text: str) -> DefaultModels:
    """The setting's text: NAME or NAME:VERSION, separated by commas. Of two versions of a name the first counts."""
    tags = [tag.strip().partition(":") for tag in text.split(",") if tag.strip()]
    versions: dict[str, str] = {}
    for name, _, version in tags:
        if version and version != "latest":
            versions.setdefault(name, version)
    return DefaultModels([name for name, _, _ in tags], versions)
