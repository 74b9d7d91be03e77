"""Figures of a package's structure: rooms, floors, imports between rooms, imports that point upwards, circles.

A room is a folder with code, or a file at the package's top. Floors are the most rooms of which each imports the next.
Where rooms import each other in a circle, the imports that point upwards are the fewest without which there is none.

    python -m tests.house training loadtests.bench
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[1]
EXACT = 7  # rooms of a circle up to which all orders are tried; the heaviest imports decide in larger ones


@dataclass(frozen=True)
class House:
    """Attributes: `loose` counts files at the top; `imports` the pairs of rooms of which one imports the other."""

    rooms: int
    loose: int
    floors: int
    imports: int
    upwards: int
    circles: int
    lines: int


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(module: str, path: Path) -> set[str]:
    """The full names that a module imports, `from a.b import c` as a.b.c."""
    found = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = (
                ".".join([*parents[: len(parents) - node.level + 1], node.module or ""]) if node.level else node.module
            )
            found |= {f"{str(base).rstrip('.')}.{alias.name}" for alias in node.names}
    return found


def files_of(package: str) -> nx.DiGraph:
    """Which file of `package` imports which."""
    found = {module for module, _ in modules(package.replace(".", "/"))}
    graph = nx.DiGraph()
    graph.add_nodes_from(found)
    for module, path in modules(package.replace(".", "/")):
        for name in imports(module, path):
            target = name if name in found else name.rpartition(".")[0]
            if target in found and target != module:
                graph.add_edge(module, target)
    return graph


def circles_of(files: nx.DiGraph) -> list[list[str]]:
    """Each circle of files, as one way around it."""
    parts = [part for part in nx.strongly_connected_components(files) if len(part) > 1]
    return [[edge[0] for edge in nx.find_cycle(files.subgraph(part))] for part in parts]


def measured(package: str) -> House:
    """The figures of `package`, by its dotted name."""
    texts = {module: path.read_text() for module, path in modules(package.replace(".", "/"))}
    files = files_of(package)
    counts = Counter((room(package, one), room(package, other)) for one, other in files.edges)
    counts = Counter({edge: count for edge, count in counts.items() if edge[0] != edge[1]})
    rooms = {room(package, module) for module, text in texts.items() if text.strip()}
    graph = nx.DiGraph()
    graph.add_nodes_from(rooms)
    graph.add_edges_from(counts)
    return House(
        rooms=sum(is_folder(name) for name in rooms),
        loose=sum(not is_folder(name) for name in rooms),
        floors=len(nx.dag_longest_path(nx.condensation(graph))),
        imports=len(counts),
        upwards=sum(against(graph.subgraph(part), counts) for part in nx.strongly_connected_components(graph)),
        circles=len(circles_of(files)),
        lines=sum(len(text.splitlines()) for text in texts.values()),
    )


def is_folder(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def room(package: str, module: str) -> str:
    """The folder of a module; a file at the top of the package is a room of its own."""
    parent = module if is_folder(module) else module.rpartition(".")[0]
    return module if parent == package else parent


def against(circle: nx.DiGraph, counts: Counter[tuple[str, str]]) -> int:
    """Imports against the order of a circle of rooms in which there are fewest of them."""
    names = sorted(circle)
    if len(names) == 1:
        return 0

    def upwards(order: tuple[str, ...]) -> int:
        place = {name: number for number, name in enumerate(order)}
        return sum(counts[edge] for edge in circle.edges if place[edge[0]] > place[edge[1]])

    if len(names) <= EXACT:
        return min(upwards(order) for order in permutations(names))
    left = nx.DiGraph()
    left.add_nodes_from(names)
    for edge in sorted(circle.edges, key=lambda edge: -counts[edge]):
        if not nx.has_path(left, edge[1], edge[0]):
            left.add_edge(*edge)
    return upwards(tuple(nx.topological_sort(left)))


def main() -> None:
    for package in sys.argv[1:] or ["training"]:
        house = measured(package)
        print(
            f"{package}: {house.rooms} rooms and {house.loose} files at the top, {house.floors} floors, "
            f"{house.imports} imports between rooms, {house.upwards} upwards, {house.circles} circles of files, "
            f"{house.lines:,} lines"
        )
        for circle in circles_of(files_of(package)):
            print("  circle:", " -> ".join(circle))


if __name__ == "__main__":
    main()
