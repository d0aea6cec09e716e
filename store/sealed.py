"""Credentials as text that only this installation can read: AES-256-GCM, bound to one connection of one tenant.

A sealed text copied to another connection's row does not open there. https://cryptography.io/en/latest/hazmat/primitives/aead/
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import JsonValue

FORMAT = "1"
KEY_BYTES = 32
NONCE_BYTES = 12  # random: one key is good for 2**32 texts (NIST SP 800-38D, 8.3)
NAME_DIGITS = 8


class CannotUnseal(Exception):
    """The credentials cannot be read. The message says what to do, and has no secret in it."""


class Sealing:
    """Seals with the first key and opens with any, so that keys can be changed: put a new one before the old.

    Args:
        keys: base64 of 32 bytes each, newest first.

    Raises:
        ValueError: there is none, or one is something else.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys: dict[str, AESGCM] = {}
        for number, text in enumerate(keys, 1):
            key = _key(text, number)
            self._keys.setdefault(hashlib.sha256(key).hexdigest()[:NAME_DIGITS], AESGCM(key))
        if not self._keys:
            raise ValueError("HOLDFAST_CREDENTIALS_KEYS has no key in it")

    def seal(self, tenant: str, connection_id: str, value: dict[str, JsonValue]) -> str:
        """The value as text for this connection."""
        name, key = next(iter(self._keys.items()))
        nonce = os.urandom(NONCE_BYTES)
        body = nonce + key.encrypt(nonce, json.dumps(value).encode(), _bound_to(tenant, connection_id))
        return f"{FORMAT}.{name}.{base64.urlsafe_b64encode(body).decode()}"

    def unseal(self, tenant: str, connection_id: str, text: str) -> dict[str, JsonValue]:
        """The value that was sealed for this connection.

        Raises:
            CannotUnseal: its key is not among ours, or the text is damaged or another connection's.
        """
        version, _, rest = text.partition(".")
        name, _, encoded = rest.partition(".")
        whose = f"the credentials of connection {connection_id}"
        again = "or connect the account again"
        if version != FORMAT:
            raise CannotUnseal(f"{whose} are in a form that this release does not know: run a later one, {again}")
        key = self._keys.get(name)
        if key is None:
            raise CannotUnseal(
                f"{whose} were sealed with key {name}, and this process has {', '.join(self._keys)}: the key changed. "
                f"Set HOLDFAST_CREDENTIALS_KEYS to the new key and the old one behind a comma, {again}. Without that "
                "setting, the key is the file credentials.key in HOLDFAST_DATA_DIR"
            )
        try:
            body = base64.urlsafe_b64decode(encoded)
            opened = key.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], _bound_to(tenant, connection_id))
        except (InvalidTag, ValueError):
            # without its cause: an error of the library need not be as careful
            raise CannotUnseal(f"{whose} are damaged, or another connection's: connect the account again") from None
        value: dict[str, JsonValue] = json.loads(opened)
        return value


def _key(text: str, number: int) -> bytes:
    plain = text.strip().rstrip("=").translate(str.maketrans("+/", "-_"))
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"key {number} of HOLDFAST_CREDENTIALS_KEYS is not base64 of {KEY_BYTES} bytes: "
            "make one with `openssl rand -base64 32`"
        )
    return key


def _bound_to(tenant: str, connection_id: str) -> bytes:
    return json.dumps([tenant, connection_id]).encode()
