"""Signatures of bundles in the format of OpenSSF's model signing 1.0: `model.sig` beside the manifest.

The file is a Sigstore bundle, JSON with a DSSE envelope. Its payload is an in-toto statement, which lists the SHA-256
of every file of the bundle. What is signed is DSSE's encoding of the payload, by ECDSA.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.inference.bundle import BESIDE, MANIFEST, SIGNATURE, Bundle, BundleError, file_record, unlisted
from services.inference.keys import HASHES, PublicKeys

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
AGAIN = "sign the bundle again with `duet models sign`"


@dataclass(frozen=True)
class Signature:
    """What a signature file says, which is true only if a trusted key signed it.

    Attributes:
        path: the file.
        payload: what was signed, before DSSE's encoding.
        signed: the signatures of it.
        name: of what was signed; of a bundle, its tag.
        files: SHA-256 (hex) by name.
    """

    path: Path
    payload: bytes
    signed: tuple[bytes, ...]
    name: str
    files: dict[str, str]


def sign(bundle: Bundle, key: EllipticCurvePrivateKey) -> Path:
    """Sign a verified bundle: write `model.sig` into its folder, in place of another one.

    Raises:
        BundleError: the folder has files that the manifest does not list.
        OSError: the file cannot be written.
    """
    files = _files(bundle)
    _refuse_unlisted(bundle)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"{bundle.name}:{bundle.version}", "digest": {"sha256": _root(files)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "resources": [{"name": name, "algorithm": "sha256", "digest": files[name]} for name in files],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(BESIDE),
            },
        },
    }
    payload = json.dumps(statement).encode()
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = key.sign(_encoded(payload), ECDSA(HASHES[key.curve.name]))
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(pem).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signed).decode(), "keyid": ""}],
        },
    }
    path, part = bundle.path / SIGNATURE, bundle.path / f".{SIGNATURE}.{os.getpid()}"
    try:
        part.write_text(json.dumps(document))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def check(bundle: Bundle, keys: PublicKeys) -> Path:
    """The key that signed a bundle, which is verified: its files are those of its manifest.

    Raises:
        BundleError: no signature, or of no such key, or of other files; the message names both digests.
    """
    signature = read(bundle)
    if signature is None:
        raise BundleError(
            f"{bundle.path / SIGNATURE}: not found, and only bundles that are signed are trusted; "
            "sign it with `duet models sign`"
        )
    for file, key in keys.items():
        for signed in signature.signed:
            try:
                key.verify(signed, _encoded(signature.payload), ECDSA(HASHES[key.curve.name]))
            except InvalidSignature:
                continue
            compare(signature, bundle)
            return file
    raise BundleError(
        f"{signature.path}: none of the trusted keys made it ({', '.join(map(str, keys))}); "
        f"{AGAIN} and one of those, or trust the key that did"
    )


def read(bundle: Bundle) -> Signature | None:
    """The signature of a bundle, None without one. That a trusted key made it, and of these files, is not checked.

    Raises:
        BundleError: it is not in this format.
    """
    path = bundle.path / SIGNATURE
    try:
        document = json.loads(path.read_bytes())
        envelope = document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signed = tuple(base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"])
        statement = json.loads(payload)
        found = (envelope["payloadType"], statement["_type"], statement["predicateType"])
        if found != (PAYLOAD_TYPE, STATEMENT_TYPE, PREDICATE_TYPE):
            raise ValueError(f"it is of the types {', '.join(map(str, found))}")
        [subject] = statement["subject"]
        files = _resources(statement["predicate"])
        if subject["digest"]["sha256"] != _root(files):
            raise ValueError("its digest is not that of the files that it lists")
        return Signature(path, payload, signed, str(subject["name"]), files)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; make it readable") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, binascii.Error) as error:
        raise BundleError(f"{path}: not a signature of OpenSSF's model signing 1.0 ({error!r}); {AGAIN}") from None


def _resources(predicate: dict[str, Any]) -> dict[str, str]:
    files = {str(resource["name"]): str(resource["digest"]) for resource in predicate["resources"]}
    algorithms = {resource["algorithm"] for resource in predicate["resources"]}
    if algorithms != {"sha256"} or predicate["serialization"]["method"] != "files":
        raise ValueError("the SHA-256 of whole files is wanted")
    if len(files) != len(predicate["resources"]):
        raise ValueError("it lists a file twice")
    return files


def compare(signature: Signature, bundle: Bundle) -> None:
    """Raise `BundleError` unless these are the files that were signed, and no others."""
    files = _files(bundle)
    if signature.files != files:
        differing = sorted(
            name for name in signature.files.keys() | files if signature.files.get(name) != files.get(name)
        )
        raise BundleError(
            f"{signature.path}: signs {signature.name} with the digest {_root(signature.files)}, but this bundle is "
            f"{bundle.name}:{bundle.version} with the digest {_root(files)} (first difference: {differing[0]}); {AGAIN}"
        )
    _refuse_unlisted(bundle)


def _files(bundle: Bundle) -> dict[str, str]:
    """SHA-256 (hex) by name of everything that a signature covers; that of the listed files is verified."""
    listed = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    return dict(sorted({**listed, MANIFEST: file_record(bundle.path / MANIFEST).sha256}.items()))


def _refuse_unlisted(bundle: Bundle) -> None:
    for name in unlisted(bundle):
        raise BundleError(f"{bundle.path / name}: a file that the manifest does not list; remove it")


def _root(files: dict[str, str]) -> str:
    """The digest of all files: SHA-256 (hex) of their digests, one after the other."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, files.values()))).hexdigest()


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, which also signs the type."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload
