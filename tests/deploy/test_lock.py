"""The locked versions in deploy/requirements/ follow pyproject.toml (`make lock` writes them)."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy" / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CUDA = re.compile(r"nvidia-(?!ml-py)|cuda-|triton$")  # of PyTorch's CUDA build alone
EXTRAS = {"serve": "duet", "loadtest": "duet[loadtest]", "train": "duet[train]", "dev": "duet[dev]"}


def blocks(name: str) -> list[str]:
    """Each pin of a lock, with its hashes."""
    lines = [line for line in (LOCKS / f"{name}.txt").read_text().splitlines(keepends=True) if line[0] != "#"]
    return re.findall(r"\S.*(?:\n .*)*\n", "".join(lines))


def pins(name: str) -> dict[str, Requirement]:
    """The pins that hold on this machine."""
    requirements = [Requirement(re.split(r" \\\n", block)[0]) for block in blocks(name)]
    held = [pin for pin in requirements if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): pin for pin in held}


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
    return {name for name in found - {"duet", "torch"} if not CUDA.match(name)}


def extras(name: str) -> list[str]:
    return PROJECT["optional-dependencies"][name] if name else PROJECT["dependencies"]


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_pins_everything_that_its_installation_needs_and_nothing_else(name: str) -> None:
    assert set(pins(name)) == closure([EXTRAS[name]])


@pytest.mark.parametrize("name", ["serve", "loadtest", "train", "build"])
def test_every_lock_has_the_same_versions(name: str) -> None:
    locked = pins("dev")
    for package, pin in pins(name).items():
        assert str(pin.specifier) == str(locked[package].specifier)


def test_every_pin_is_one_version_within_the_projects_bounds() -> None:
    locked = pins("dev") | pins("torch")
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


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_pin_has_hashes(path: Path) -> None:
    found = blocks(path.stem)
    assert found
    assert [block for block in found if "--hash=sha256:" not in block] == []


def test_pytorchs_cpu_build_is_of_the_locked_version() -> None:
    (cpu,), (public,) = pins("torch-cpu").values(), pins("torch").values()
    assert str(cpu.specifier) == f"{public.specifier}+cpu"
