"""A browser and its push service: https://www.rfc-editor.org/rfc/rfc8030, decryption by RFC 8291."""

import json
import os
import re
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from simulator.credentials import base64url
from simulator.rows import ROWS, Answer

MAX_BODY_BYTES = 4096
TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
DAY = 86_400


@dataclass(frozen=True)
class Subscription:
    """What a browser made; `as_json` is what it gives to the page."""

    endpoint: str
    key: ec.EllipticCurvePrivateKey
    auth: bytes

    def as_json(self) -> dict[str, Any]:
        """Endpoint and keys."""
        return {
            "endpoint": self.endpoint,
            "keys": {"p256dh": base64url(_point(self.key)), "auth": base64url(self.auth)},
        }

    def decrypt(self, body: bytes) -> dict[str, Any]:
        """The payload.

        Raises:
            InvalidTag: not encrypted for this subscription.
        """
        salt, length = body[:16], body[20]
        sender = body[21 : 21 + length]
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
        secret = _derive(self.auth, shared, b"WebPush: info\x00" + _point(self.key) + sender, 32)
        key = _derive(salt, secret, b"Content-Encoding: aes128gcm\x00", 16)
        nonce = _derive(salt, secret, b"Content-Encoding: nonce\x00", 12)
        padded = AESGCM(key).decrypt(nonce, body[21 + length :], None)
        payload: dict[str, Any] = json.loads(padded.rstrip(b"\x00")[:-1])
        return payload


def subscribe(origin: str) -> Subscription:
    """A new one at this push service."""
    name = base64url(os.urandom(12))
    return Subscription(f"{origin}/web-push/{name}", ec.generate_private_key(ec.SECP256R1()), os.urandom(16))


def judge(subscription: Subscription, headers: dict[str, str], body: bytes) -> tuple[Answer, dict[str, Any] | None]:  # noqa: PLR0911 - a row each
    """The answer, and the payload if it was taken."""
    rows = ROWS["web_push"]
    ttl = headers.get("ttl", "")
    if not ttl.isdigit():
        return rows["400 ttl"], None
    if "topic" in headers and not TOPIC.fullmatch(headers["topic"]):
        return rows["400 topic"], None
    if len(body) > MAX_BODY_BYTES:
        return rows["413"], None
    if headers.get("content-encoding") != "aes128gcm":
        return rows["400 crypto"], None
    if not _signed(headers.get("authorization", ""), subscription.endpoint):
        return rows["401"], None
    try:
        payload = subscription.decrypt(body)
    except (InvalidTag, ValueError, IndexError):
        return rows["400 crypto"], None
    return Answer(201, "", {"Location": f"{subscription.endpoint}/m/{int(time.time() * 1e6)}"}), payload


def _signed(authorization: str, endpoint: str) -> bool:
    found = re.match(r"vapid t=([^,]+), ?k=(.+)", authorization)
    if not found:
        return False
    point = urlsafe_b64decode(found.group(2) + "=" * (-len(found.group(2)) % 4))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    parts = urlsplit(endpoint)
    try:
        claims = jwt.decode(
            found.group(1),
            public,
            algorithms=["ES256"],
            audience=f"{parts.scheme}://{parts.netloc}",
        )
    except jwt.PyJWTError:
        return False
    return bool(claims["exp"] <= time.time() + DAY + 60 and claims.get("sub"))


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _derive(salt: bytes, key: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)
