"""`duet models` on a folder of bundles and with keys; what goes to a registry, tests/services/delivery/ has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.inference import registry
from services.inference.bundle import SIGNATURE, Bundle
from tests.registries import duet_models, refusal
from tests.services.conftest import Keys

MakeBundle = Callable[..., Bundle]

pytestmark = pytest.mark.usefixtures("empty_store")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    for name in ("DUET_BUNDLES", "DUET_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)


def test_list_show_and_verify_read_the_folder_in_place_of_the_store(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, mounted = registry.store(make_bundle("stored", name="tiny-stored")), make_bundle("mounted", weight=2)
    shutil.copytree(mounted.path, tmp_path / "mount" / "any")
    monkeypatch.setenv("DUET_BUNDLES", str(tmp_path / "mount"))
    listed = duet_models("list").stdout
    assert mounted.version in listed
    assert stored.version not in listed
    assert str(tmp_path / "mount" / "any") in duet_models("show", mounted.name).stdout
    assert duet_models("verify").stdout == f"ok      {mounted.name}:{mounted.version}, 2 files\n"
    said = refusal(duet_models("show", stored.name))
    assert f"model 'tiny-stored' is not in DUET_BUNDLES ({tmp_path / 'mount'})" in said
    assert registry.entries() == [stored], "import, delete and pull are about the store in any case"


def test_a_folder_is_shown_signed_and_verified_without_the_store(make_bundle: MakeBundle, keys: Keys) -> None:
    bundle, (private, public) = make_bundle(), keys("release")
    folder = f"{bundle.path}/"
    assert bundle.digest in duet_models("show", folder).stdout
    tag = f"{bundle.name}:{bundle.version}"
    assert duet_models("sign", folder, "--key", private).stdout == f"signed {tag}: {bundle.path / SIGNATURE}\n"
    verified = duet_models("verify", folder, "--key", public)
    assert verified.stdout == f"ok      {tag}, 2 files, signed by {public}\n"
    assert registry.entries() == []


def test_verify_wants_a_signature_where_keys_are_given_or_set(
    make_bundle: MakeBundle, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.store(make_bundle())
    private, public = keys("release")
    _, foreign = keys("foreign")
    assert duet_models("verify").exit_code == 0
    for how in ("option", "setting"):
        option = ["--key", public] if how == "option" else []
        if how == "setting":
            monkeypatch.setenv("DUET_TRUSTED_KEYS", str(public))
        result = duet_models("verify", entry.name, *option)
        assert result.exit_code == 1
        assert f"FAILED  {entry.tag}: {entry.path / SIGNATURE}: not found" in result.stdout
    assert duet_models("sign", entry.name, "--key", private).exit_code == 0
    assert f"signed by {public}" in duet_models("verify").stdout
    result = duet_models("verify", "--key", foreign)
    assert result.exit_code == 1
    assert f"none of the trusted keys made it ({foreign})" in result.stdout
    assert "signed by" in duet_models("verify", "--key", foreign, "--key", public).stdout


def test_the_password_of_a_key_is_asked_for_and_not_shown(make_bundle: MakeBundle, keys: Keys) -> None:
    bundle, (private, _) = make_bundle(), keys("release", password="secret")
    result = duet_models("sign", f"{bundle.path}/", "--key", private, answer="secret\n")
    assert result.exit_code == 0
    assert f"Password of {private}:" in result.stderr
    assert "secret" not in result.output
    wrong = duet_models("sign", f"{bundle.path}/", "--key", private, answer="wrong\n")
    assert wrong.exit_code == 1
    assert "is no private key in PEM, or its password is another one" in wrong.stderr


def test_what_cannot_be_signed_or_verified_is_one_line(make_bundle: MakeBundle, keys: Keys, tmp_path: Path) -> None:
    bundle, (private, public) = make_bundle(), keys("release")
    assert "No such file" in refusal(duet_models("sign", f"{bundle.path}/", "--key", tmp_path / "missing"))
    assert "is no private key in PEM" in refusal(duet_models("sign", f"{bundle.path}/", "--key", public))
    assert "is no public key in PEM" in refusal(duet_models("verify", f"{bundle.path}/", "--key", private))
    (bundle.path / "card.md").unlink()
    assert "card.md: No such file" in refusal(duet_models("sign", f"{bundle.path}/", "--key", private))
    assert not (bundle.path / SIGNATURE).exists()
    (tmp_path / "empty").mkdir()
    said = refusal(duet_models("verify", f"{tmp_path}/empty"))
    assert said.startswith(f"{tmp_path}/empty holds no bundle")
