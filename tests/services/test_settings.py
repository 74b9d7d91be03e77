"""Settings come from DUET_ variables, typed, and a wrong one is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from services import settings
from services.settings import EXPORTER, Settings, SettingsError, TraceSettings, read_traces


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DUET_{name.upper()}", raising=False)
    for name in TraceSettings.model_fields:
        monkeypatch.delenv(f"OTEL_{name.upper()}", raising=False)


def test_every_setting_has_a_default_and_help_with_its_unit() -> None:
    Settings()
    units = {"_ms": "Milliseconds", "_seconds": "Seconds", "_bytes": "Bytes", "_pixels": "Pixels"}
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        for suffix, unit in units.items():
            assert not name.endswith(suffix) or field.description.startswith(unit), name


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_MODELS", "digits-cnn,digits-vae:0123")
    monkeypatch.setenv("DUET_QUEUE_ITEMS", "7")
    monkeypatch.setenv("QUEUE_ITEMS", "8")
    found = Settings()
    assert (found.models, found.queue_items) == ("digits-cnn,digits-vae:0123", 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUEUE_ITEMS", "0"),
        ("QUEUE_ITEMS", "-1"),
        ("BATCH_ITEMS", "many"),
        ("REDIS_TIMEOUT_MS", "0"),
        ("CACHE_TTL_SECONDS", "1.5"),
        ("CACHE_MEMORY_BYTES", "64MB"),
        ("REDIS_ADMISSION", "sometimes"),
        ("REDIS_ADMISSION", ""),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis+ring://localhost:6379"),
        ("REDIS_URL", "REDIS://localhost:6379"),
        ("REDIS_URL", "http://localhost:6379"),
        ("DRIFT_TOLERATED", "-0.01"),
        ("DRIFT_TOLERATED", "0.51"),
        ("DRIFT_TOLERATED", "2 %"),
        ("DRIFT_TOLERATED", "nan"),
        ("DRIFT_SLICE_SECONDS", "0"),
        ("DRIFT_SLICE_SECONDS", "inf"),
        ("CLIENT_HEADER", "X Client"),
        ("CLIENT_HEADER", "X-Client:"),
        ("CLIENT_HEADER", "Authorization"),
        ("CLIENT_HEADER", "cookie"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"DUET_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_the_redis_password_is_shown_by_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", "redis://user:hunter2@host:6379/0")
    found = Settings()
    assert "hunter2" not in f"{found!r} {found} {found.model_dump_json()}"
    assert found.redis_url.get_secret_value() == "redis://user:hunter2@host:6379/0"
    monkeypatch.setenv("DUET_REDIS_URL", "http://user:hunter2@host")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://localhost",
        "rediss://user:password@localhost:6380/1?ssl_ca_certs=/ca.pem",
        "unix:///run/redis.sock",
        "redis+sentinel://a:26379,b:26379/primary",
        "rediss+sentinel://a/primary",
        "redis+cluster://a:6379,b:6379",
        "rediss+cluster://a",
    ],
)
def test_redis_is_named_in_every_way_it_is_run(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", url)
    assert Settings().redis_url.get_secret_value() == url


def test_whether_redis_is_asked_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().redis_admission == "auto"
    for admission in ("always", "never"):
        monkeypatch.setenv("DUET_REDIS_ADMISSION", admission)
        assert Settings().redis_admission == admission


@pytest.mark.parametrize("share", [0, 0.02, 0.5])
def test_a_share_of_strange_images_is_tolerated(share: float) -> None:
    assert Settings(drift_tolerated=share).drift_tolerated == share


def test_headers_have_no_case() -> None:
    assert Settings(client_header="X-Client").client_header == "x-client"


def test_no_memory_tier_is_a_choice() -> None:
    assert Settings(cache_memory_bytes=0).cache_memory_bytes == 0


def test_settings_do_not_change_while_serving() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().queue_items = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variables", "endpoint", "share"),
    [
        ({"EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces", 0.01),
        ({"EXPORTER_OTLP_ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1/traces", 0.01),
        ({"EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/mine"}, "http://c:4318/mine", 0.01),
        (
            {"EXPORTER_OTLP_ENDPOINT": "http://a", "EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/t", "TRACES_SAMPLER": ""},
            "http://b/t",
            0.01,
        ),
        ({"EXPORTER_OTLP_ENDPOINT": "http://c", "TRACES_SAMPLER_ARG": "0.25"}, "http://c/v1/traces", 0.25),
        ({"EXPORTER_OTLP_ENDPOINT": "http://c", "TRACES_SAMPLER": "always_on"}, "http://c/v1/traces", 1.0),
        ({"EXPORTER_OTLP_ENDPOINT": "http://c", "TRACES_SAMPLER": "parentbased_always_off"}, "http://c/v1/traces", 0.0),
    ],
)
def test_traces_go_where_the_standard_variables_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str, share: float
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    found = read_traces()
    assert found is not None
    assert (found.endpoint, found.share) == (endpoint, share)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"EXPORTER_OTLP_ENDPOINT": ""},
        {"EXPORTER_OTLP_ENDPOINT": "http://c", "TRACES_EXPORTER": "none"},
        {"EXPORTER_OTLP_PROTOCOL": "grpc", "TRACES_SAMPLER": "xray"},  # of other programs: nothing is sent
    ],
)
def test_without_an_endpoint_there_are_no_traces(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    assert read_traces() is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EXPORTER_OTLP_ENDPOINT", "c:4318", "'c:4318' must be empty or begin with http:// or https://"),
        ("EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "'http://' must be empty or begin with"),
        ("EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc' is not one of http/protobuf"),
        ("EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "'http/json' is not one of http/protobuf"),
        ("TRACES_EXPORTER", "zipkin", "'zipkin' is not one of otlp, none"),
        ("TRACES_SAMPLER", "xray", "'xray' is not one of parentbased_traceidratio, "),
        ("TRACES_SAMPLER_ARG", "1.5", "'1.5' is not a number of at least 0 and at most 1; the default is 0.01"),
        ("TRACES_SAMPLER_ARG", "nan", "'nan' is not a number"),
    ],
)
def test_a_wrong_variable_of_traces_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")
    monkeypatch.setenv(f"OTEL_{name}", value)
    with pytest.raises(SettingsError) as caught:
        read_traces()
    assert str(caught.value).startswith(f"OTEL_{name}: {said}")


def test_without_the_package_that_sends_traces_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "EXPORTER", "a-package-that-nobody-has")
    assert read_traces() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")
    message = (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the package a-package-that-nobody-has, which sends traces, is not "
        "installed; install it, or unset the variable"
    )
    with pytest.raises(SettingsError, match=message):
        read_traces()


def test_the_package_that_sends_traces_is_installed_with_the_services() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith(EXPORTER) for line in project["dependencies"])
