"""A recipe: decides how each network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How each network is trained.

    Args:
        name: as on the command line.
        networks: the recipe of each network by its name in training/kinds.py: a dataclass, which the network's loop
            defines.
        per_dataset: recipes that replace this one for certain data sets, by their names.
    """

    name: str
    networks: Mapping[str, Any]
    per_dataset: Mapping[str, Recipe] = field(default_factory=dict)

    def for_dataset(self, dataset: str) -> Recipe:
        """The recipe for the data set of that name."""
        return self.per_dataset.get(dataset, self)

    def changed(self, **networks: Any) -> Recipe:
        """This recipe with other recipes of some networks."""
        return replace(self, networks={**self.networks, **networks})
