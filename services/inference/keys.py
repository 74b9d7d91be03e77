"""Keys of signatures: elliptic curves, in PEM files, as OpenSSF's model signing takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from services.inference.bundle import BundleError

HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
CURVES = "an elliptic-curve key (P-256, P-384 or P-521)"

PublicKeys: TypeAlias = dict[Path, EllipticCurvePublicKey]  # by file


def public_keys(where: str, field: str) -> PublicKeys:
    """The keys in some files, and in the `.pem` and `.pub` files of some folders.

    Args:
        where: paths, separated by commas.
        field: the setting or option that has them, for errors.

    Raises:
        BundleError: a file cannot be read or is no such key, or there is none at all.
    """
    found: PublicKeys = {}
    for path in (Path(part.strip()) for part in where.split(",") if part.strip()):
        files = sorted(f for f in path.iterdir() if f.suffix in (".pem", ".pub")) if path.is_dir() else [path]
        if not files:
            raise BundleError(f"{field}: {path} holds no .pem or .pub file; put the public keys there")
        found |= {file: _public_key(file, field) for file in files}
    if not found:
        raise BundleError(f"{field}: {where!r} names no file; name those of the public keys")
    return found


def _public_key(file: Path, field: str) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise BundleError(f"{field}: {file}: {error.strerror}; name a file that can be read") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BundleError(f"{field}: {file} is no public key in PEM; `openssl pkey -pubout` writes one") from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in HASHES:
        raise BundleError(f"{field}: {file} is not {CURVES}; sign with such a key and name its public half")
    return key


def private_key(file: Path, ask: Callable[[], str]) -> EllipticCurvePrivateKey:
    """The key in a file; `ask` gives its password if it has one.

    Raises:
        BundleError: the file cannot be read, is no such key, or has another password.
    """
    try:
        data = file.read_bytes()
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # it has a password
            key = load_pem_private_key(data, ask().encode())
    except OSError as error:
        raise BundleError(f"--key: {file}: {error.strerror}; name a file that can be read") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BundleError(f"--key: {file} is no private key in PEM, or its password is another one") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in HASHES:
        raise BundleError(f"--key: {file} is not {CURVES}; `openssl genpkey` with `-algorithm EC` makes one")
    return key
