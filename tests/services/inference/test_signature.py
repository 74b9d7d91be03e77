"""Signatures: OpenSSF's own program and Duet read each other's, and whatever is not signed as it is, is refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from services.inference import registry, signature
from services.inference.bundle import MANIFEST, SIGNATURE, Bundle, BundleError, load, seal
from services.inference.keys import private_key, public_keys
from tests.services.conftest import Keys
from tests.services.dataplane.planes import running

MakeBundle = Callable[..., Bundle]


def sign(bundle: Bundle, private: Path) -> Path:
    return signature.sign(bundle, private_key(private, lambda: "secret"))


def refused(bundle: Bundle, public: Path) -> str:
    with pytest.raises(BundleError) as caught:
        signature.check(load(bundle.path), public_keys(str(public), "--key"))
    return str(caught.value)


# OpenSSF's library in a process of its own: verify what Duet signed, find a change, and sign it.
OPENSSF = """
import pathlib, sys
from model_signing import signing, verifying
for name in sys.argv[1:]:
    folder, private, public = (pathlib.Path(name + end) for end in ("", ".private.pem", ".public.pem"))
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=public)
    verifier.verify(folder, folder / "model.sig")
    card = folder / "card.md"
    text = card.read_text()
    card.write_text("another")
    try:
        verifier.verify(folder, folder / "model.sig")
    except ValueError as error:
        assert "card.md" in str(error), error
    else:
        raise AssertionError("a change was not found")
    card.write_text(text)
    (folder / "model.sig").unlink()
    signing.Config().use_elliptic_key_signer(private_key=private).sign(folder, folder / "model.sig")
"""


@pytest.mark.slow
def test_openssfs_library_and_duet_verify_each_others_signatures(
    make_bundle: MakeBundle, keys: Keys, tmp_path: Path
) -> None:
    bundles, signed = {}, {}
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        bundle = make_bundle(curve.name)
        (bundle.path / "pictures").mkdir()
        (bundle.path / "pictures" / "a.txt").write_text("a")
        (bundle.path / "pictures-b").write_text("b")  # the two sort differently as paths and as text
        bundles[curve.name] = seal(bundle.path, bundle.manifest)
        signed[curve.name] = sign(bundles[curve.name], keys(curve.name, curve)[0]).read_bytes()
    names = [str(tmp_path / name) for name in bundles]
    run = subprocess.run([sys.executable, "-c", OPENSSF, *names], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for name, bundle in bundles.items():
        assert (bundle.path / SIGNATURE).read_bytes() != signed[name]
        public = tmp_path / f"{name}.public.pem"
        assert signature.check(load(bundle.path), public_keys(str(public), "--key")) == public


def test_what_was_signed_is_accepted_and_the_key_is_named(make_bundle: MakeBundle, keys: Keys, tmp_path: Path) -> None:
    bundle = make_bundle()
    other, release = keys("other"), keys("release")
    assert sign(bundle, release[0]) == bundle.path / SIGNATURE
    loaded = load(bundle.path)
    assert loaded.manifest == bundle.manifest
    (tmp_path / "trusted").mkdir()
    for _, public in (other, release):
        shutil.copy(public, tmp_path / "trusted")
    trusted = public_keys(str(tmp_path / "trusted"), "--key")
    assert signature.check(loaded, trusted) == tmp_path / "trusted" / release[1].name
    assert sorted(path.name for path in bundle.path.iterdir()) == ["card.md", "classify.onnx", MANIFEST, SIGNATURE]
    assert seal(bundle.path, bundle.manifest).digest == bundle.digest, "a bundle that is sealed again is the same"


def test_a_stored_bundle_is_signed_in_the_store(empty_store: Path, make_bundle: MakeBundle, keys: Keys) -> None:
    private, public = keys("release")
    entry = registry.store(make_bundle())
    sign(load(entry.path), private)
    signature.check(load(entry.path), public_keys(str(public), "--key"))


def test_a_signature_is_stored_with_a_bundle_that_is_there_without(
    empty_store: Path, make_bundle: MakeBundle, keys: Keys
) -> None:
    bundle = make_bundle()
    registry.store(bundle)
    sign(bundle, keys("release")[0])
    entry = registry.store(bundle)
    assert (entry.path / SIGNATURE).read_bytes() == (bundle.path / SIGNATURE).read_bytes()
    assert registry.entries() == [entry]
    (bundle.path / SIGNATURE).unlink()
    assert (registry.store(bundle).path / SIGNATURE).exists(), "a bundle without a signature takes none away"


def test_no_signature_is_refused(make_bundle: MakeBundle, keys: Keys) -> None:
    said = refused(make_bundle(), keys("release")[1])
    assert "model.sig: not found, and only bundles that are signed are trusted" in said


def test_a_foreign_key_is_refused_and_the_trusted_ones_are_named(make_bundle: MakeBundle, keys: Keys) -> None:
    bundle, public = make_bundle(), keys("release")[1]
    sign(bundle, keys("foreign")[0])
    assert f"none of the trusted keys made it ({public})" in refused(bundle, public)


def test_a_foreign_signature_that_claims_the_trusted_key_is_refused(make_bundle: MakeBundle, keys: Keys) -> None:
    """The hint of the key is not signed."""
    bundle, (private, public) = make_bundle(), keys("release")
    hint = json.loads(sign(bundle, private).read_text())["verificationMaterial"]
    document = json.loads(sign(bundle, keys("foreign")[0]).read_text())
    (bundle.path / SIGNATURE).write_text(json.dumps({**document, "verificationMaterial": hint}))
    assert "none of the trusted keys made it" in refused(bundle, public)


def test_a_signature_of_another_bundle_is_refused_with_both_digests(make_bundle: MakeBundle, keys: Keys) -> None:
    one, two = make_bundle("one"), make_bundle("two", weight=2)
    private, public = keys("release")
    path = sign(one, private)
    digest = json.loads(base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"]))["subject"][0][
        "digest"
    ]
    shutil.copy(path, two.path)
    said = refused(two, public)
    assert f"signs tiny-linear:{one.version} with the digest {digest['sha256']}" in said
    assert f"this bundle is tiny-linear:{two.version} with the digest " in said
    assert "(first difference: classify.onnx)" in said


@pytest.mark.parametrize("name", ["extra.py", ".hidden", "pictures/extra.png"])
def test_an_added_file_is_refused(make_bundle: MakeBundle, keys: Keys, name: str) -> None:
    bundle, (private, public) = make_bundle(), keys("release")
    sign(bundle, private)
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).write_text("x")
    assert f"{bundle.path / name}: a file that the manifest does not list" in refused(bundle, public)
    with pytest.raises(BundleError, match="does not list"):
        sign(bundle, private)


def test_an_added_link_to_a_folder_is_refused(make_bundle: MakeBundle, keys: Keys, tmp_path: Path) -> None:
    bundle, (private, public) = make_bundle(), keys("release")
    sign(bundle, private)
    (bundle.path / "more").symlink_to(tmp_path)
    assert "more: a file that the manifest does not list" in refused(bundle, public)


def test_a_bundle_that_was_made_again_after_a_change_is_refused(make_bundle: MakeBundle, keys: Keys) -> None:
    """The manifest fits the changed file, and only the signature shows it."""
    bundle, (private, public) = make_bundle(), keys("release")
    sign(bundle, private)
    (bundle.path / "card.md").write_text("another")
    changed = seal(bundle.path, bundle.manifest)
    said = refused(changed, public)
    assert f"this bundle is tiny-linear:{changed.version}" in said
    assert "(first difference: card.md)" in said


def payload_of(document: Any) -> Any:
    return json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))


def replace_payload(document: Any, **fields: Any) -> None:
    payload = json.dumps({**payload_of(document), **fields}).encode()
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()


def shards(document: Any) -> None:
    predicate = payload_of(document)["predicate"]
    replace_payload(document, predicate={**predicate, "serialization": {"method": "shards"}})


def twice(document: Any) -> None:
    predicate = payload_of(document)["predicate"]
    replace_payload(document, predicate={**predicate, "resources": predicate["resources"] * 2})


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("dsseEnvelope"),
        lambda document: document["dsseEnvelope"].update(payload="?"),
        lambda document: document["dsseEnvelope"].update(payloadType="text/plain"),
        lambda document: document["dsseEnvelope"].update(signatures=3),
        lambda document: replace_payload(document, _type="another"),
        lambda document: replace_payload(document, predicateType="another"),
        lambda document: replace_payload(document, subject=[]),
        lambda document: replace_payload(document, subject=[{"name": "a", "digest": {"sha256": "0" * 64}}]),
        lambda document: replace_payload(document, predicate=[]),
        shards,
        twice,
    ],
)
def test_another_format_is_refused(make_bundle: MakeBundle, keys: Keys, change: Callable[[Any], object]) -> None:
    bundle, (private, public) = make_bundle(), keys("release")
    document = json.loads(sign(bundle, private).read_text())
    change(document)
    (bundle.path / SIGNATURE).write_text(json.dumps(document))
    assert "model.sig: not a signature of OpenSSF's model signing 1.0" in refused(bundle, public)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_signature_is_refused(make_bundle: MakeBundle, keys: Keys, text: str) -> None:
    bundle = make_bundle()
    (bundle.path / SIGNATURE).write_text(text)
    assert "not a signature of OpenSSF's model signing 1.0" in refused(bundle, keys("release")[1])


def test_every_flipped_byte_of_a_payload_is_refused(make_bundle: MakeBundle, keys: Keys) -> None:
    bundle, (private, public) = make_bundle(), keys("release")
    document = json.loads(sign(bundle, private).read_text())
    payload = base64.b64decode(document["dsseEnvelope"]["payload"])
    for place in range(0, len(payload), 7):
        flipped = bytearray(payload)
        flipped[place] ^= 1
        document["dsseEnvelope"]["payload"] = base64.b64encode(flipped).decode()
        (bundle.path / SIGNATURE).write_text(json.dumps(document))
        assert "model.sig" in refused(bundle, public)


# --- Keys


def test_a_private_key_with_a_password_is_asked_for_it(make_bundle: MakeBundle, keys: Keys) -> None:
    bundle, (private, public) = make_bundle(), keys("release", password="secret")
    sign(bundle, private)
    signature.check(load(bundle.path), public_keys(str(public), "--key"))
    with pytest.raises(BundleError, match="its password is another one"):
        private_key(private, lambda: "wrong")


def test_files_that_hold_no_such_key_are_refused_by_name(tmp_path: Path, keys: Keys) -> None:
    key = rsa.generate_private_key(65537, 2048)
    old = ec.generate_private_key(ec.SECP256K1())
    for name, of in (("rsa", key), ("old", old)):
        private = of.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.key").write_bytes(private)
        public = of.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
        with pytest.raises(BundleError, match=rf"DUET_TRUSTED_KEYS: .*{name}.pub is not an elliptic-curve key"):
            public_keys(str(tmp_path / f"{name}.pub"), "DUET_TRUSTED_KEYS")
        with pytest.raises(BundleError, match=rf"--key: .*{name}.key is not an elliptic-curve key"):
            private_key(tmp_path / f"{name}.key", str)
    private, public = keys("release")
    with pytest.raises(BundleError, match=r"private\.pem is no public key in PEM"):
        public_keys(str(private), "DUET_TRUSTED_KEYS")
    with pytest.raises(BundleError, match=r"public\.pem is no private key in PEM"):
        private_key(public, str)
    (tmp_path / "empty").mkdir()
    for where, reason in (("empty", "holds no .pem or .pub file"), ("missing", "No such file")):
        with pytest.raises(BundleError, match=f"DUET_TRUSTED_KEYS: .*{where}.*{reason}"):
            public_keys(str(tmp_path / where), "DUET_TRUSTED_KEYS")
    with pytest.raises(BundleError, match="names no file"):
        public_keys(" , ", "DUET_TRUSTED_KEYS")


# --- What a service makes of it


async def test_a_service_serves_what_a_trusted_key_signed_and_says_why_not(
    empty_store: Path, make_bundle: MakeBundle, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys("release")
    monkeypatch.setenv("DUET_TRUSTED_KEYS", str(public))
    entry = registry.store(make_bundle())
    async with running("classification") as plane:
        assert not plane.ready
        assert "model.sig: not found" in plane.damaged[entry.tag]
    sign(load(entry.path), private)
    async with running("classification") as plane:
        assert plane.ready, plane.problems
    monkeypatch.setenv("DUET_TRUSTED_KEYS", str(public.with_name("missing.pem")))
    async with running("classification") as plane:
        assert not plane.ready
        assert "DUET_TRUSTED_KEYS: " in plane.damaged[entry.tag]
        assert "missing.pem: No such file" in plane.damaged[entry.tag]
