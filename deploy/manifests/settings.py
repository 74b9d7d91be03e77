"""Checks of settings: the variables of the services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from deploy.manifests.objects import Object, Objects, containers, name, pod, services, serving, variables, workloads
from services.settings import Settings

PREFIX = "DUET_"
THREADS = {"containerName": "serve", "resource": "requests.cpu", "divisor": "1"}
DEFAULTS = {field: info.default for field, info in Settings.model_fields.items()}


def refused(given: Mapping[str, str | None]) -> dict[str, str]:
    """The settings that the services would not take: the variable, and why."""
    wrong = {key: "is no setting of Duet" for key in given if key.startswith(PREFIX) and _field(key) not in DEFAULTS}
    try:
        Settings(**DEFAULTS | _known(given))
    except ValidationError as error:
        wrong |= {f"{PREFIX}{part['loc'][0]}".upper(): part["msg"] for part in error.errors()}
    return wrong


def read(given: Mapping[str, str | None]) -> Settings:
    """The settings of a pod, whatever this process's environment says; a value that is not allowed is the default."""
    wrong = refused(given)
    return Settings(**DEFAULTS | _known({key: value for key, value in given.items() if key not in wrong}))


def _known(given: Mapping[str, str | None]) -> dict[str, str]:
    return {_field(key): value for key, value in given.items() if value is not None and _field(key) in DEFAULTS}


def _field(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower()


def names(objects: Objects) -> Iterator[str]:
    """Each DUET_ variable is a setting, and its value is allowed; no service link of Kubernetes looks like one."""
    for item in services(objects):
        given = variables(objects, serving(item))
        yield from (
            f"{name(item)}: {key}: {value!r} {why}" for key, why in refused(given).items() for value in [given[key]]
        )
    for item in workloads(objects):
        if pod(item).get("enableServiceLinks") is not False:
            yield f"{name(item)}: enableServiceLinks is not false"


def threads(objects: Objects) -> Iterator[str]:
    """Graphs compute with as many threads as CPUs are requested, not as the node has."""
    for item in services(objects):
        container = serving(item)
        given: Object = next((v for v in container.get("env", []) if v["name"] == "DUET_THREADS"), {})
        if given.get("valueFrom", {}).get("resourceFieldRef") != THREADS:
            yield f"{name(item)}: env: DUET_THREADS does not come from resourceFieldRef {THREADS}"
        if "cpu" not in container.get("resources", {}).get("requests", {}):
            yield f"{name(item)}: resources.requests.cpu is missing"


def order(objects: Objects) -> Iterator[str]:
    """A variable that names another one as $(NAME) comes after it."""
    for item in workloads(objects):
        for container in containers(item):
            before: set[str] = set()
            for variable in container.get("env", []):
                for used in _used(variable.get("value", "")):
                    if used not in before:
                        yield f"{name(item)}: env: {variable['name']} uses $({used}), which is not set before it"
                before.add(variable["name"])
            for argument in container.get("args", []):
                yield from (
                    f"{name(item)}: args: $({used}) is no variable of the container"
                    for used in _used(str(argument))
                    if used not in before
                )


def _used(text: str) -> list[str]:
    return [part.partition(")")[0] for part in text.split("$(")[1:]]
