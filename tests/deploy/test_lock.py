"""constraints.txt and deploy/requirements.txt follow pyproject.toml (`make lock` writes both)."""

import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BY_HAND = {"duet", "setuptools", "triton"}  # what deploy/pins.py leaves out


def pins(path: str) -> dict[str, Requirement]:
    lines = [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}


def closure(direct: list[str]) -> set[str]:
    """What `direct` needs, and what that needs in turn, as the installed packages tell."""
    found: set[str] = set()
    waiting = [(Requirement(line), "") for line in direct]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                needs = extras(wanted) if name == "duet" else requires(name) or []
                waiting.extend((Requirement(line), wanted) for line in needs)
        found.add(name)
    return {name for name in found - BY_HAND if not name.startswith(("cuda-", "nvidia-")) or name == "nvidia-ml-py"}


def extras(name: str) -> list[str]:
    return PROJECT["optional-dependencies"][name] if name else PROJECT["dependencies"]


def test_constraints_pin_everything_that_an_install_with_all_extras_brings() -> None:
    assert set(pins("constraints.txt")) == closure(["duet[dev]"])


def test_the_serving_image_installs_the_base_dependencies_and_what_they_need() -> None:
    assert set(pins("deploy/requirements.txt")) == closure(["duet"])


def test_the_serving_image_has_the_locked_versions() -> None:
    locked = pins("constraints.txt")
    for name, pin in pins("deploy/requirements.txt").items():
        assert str(pin.specifier) == str(locked[name].specifier)


def test_every_pin_is_one_public_version_within_the_projects_bounds() -> None:
    locked = pins("constraints.txt")
    for pin in locked.values():
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert "+" not in exact.version
    groups = PROJECT["optional-dependencies"].values()
    for line in [*PROJECT["dependencies"], *(line for group in groups for line in group)]:
        requirement = Requirement(line)
        if requirement.name != "duet":
            (exact,) = locked[canonicalize_name(requirement.name)].specifier
            assert exact.version in requirement.specifier, requirement
