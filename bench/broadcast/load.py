"""What every contender sends: one text to many devices."""

import json
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PROJECT = "bench"
SUBJECT = "New in Acme: shared folders"
TEXT = "Invite your team to a folder and everyone sees every change at once. Open the app to share your first one."
MESSAGE = {"category": "news", "channels": ["fcm"], "content": {"subject": SUBJECT, "text": TEXT}}
TTL_SECONDS = 86_400
TOKEN_CHARACTERS = 152  # 11 and a colon before 140; as FCM's are


def token(number: int) -> str:
    """Of a device; as long as FCM's."""
    head = f"{number:011d}:APA91b"
    return head + "x" * (TOKEN_CHARACTERS - len(head))


def ndjson(pushes: int) -> Iterator[bytes]:
    """The body of POST /v1/broadcasts, in pieces."""
    yield json.dumps(MESSAGE).encode() + b"\n"
    lines: list[str] = []
    for number in range(pushes):
        lines.append(json.dumps({"channel": "fcm", "address": token(number)}))
        if len(lines) == 500 or number == pushes - 1:
            yield ("\n".join(lines) + "\n").encode()
            lines.clear()


def service_account(folder: Path, sink_url: str) -> Path:
    """A key that the sink's token endpoint takes, as it takes every key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "bench",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "client_email": f"bench@{PROJECT}.iam.gserviceaccount.com",
        "token_uri": f"{sink_url}/token",
    }
    path = folder / "service-account.json"
    path.write_text(json.dumps(account))
    return path
