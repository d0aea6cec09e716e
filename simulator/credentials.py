"""Keys and tokens that clients of the simulator need; made once per folder."""

import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SLACK_TOKEN = "xoxb-simulator"  # noqa: S105 - of a simulator
APNS_KEY_ID, APNS_TEAM_ID, APNS_TOPIC = "SIMKEY1234", "SIMTEAM123", "com.acme.app"
PROJECT = "holdfast-sim"


@dataclass(frozen=True)
class Credentials:
    """Paths of the files in the folder."""

    service_account: Path
    apns_key: Path
    vapid_private: Path
    vapid_public: Path

    def service_account_public_key(self) -> str:
        """PEM, to verify token requests with."""
        return str(json.loads(self.service_account.read_text())["public_key"])

    def apns_public_key(self) -> bytes:
        """PEM, to verify provider tokens with."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(self.apns_key.read_bytes(), None)
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _private(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make(folder: Path, token_uri: str) -> Credentials:
    """Make what is missing; the service account's token_uri is always that of this run."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Credentials(
        service_account=folder / "service-account.json",
        apns_key=folder / "apns-key.p8",
        vapid_private=folder / "vapid-private.pem",
        vapid_public=folder / "vapid-public.pem",
    )
    if made.service_account.exists():
        account = json.loads(made.service_account.read_text())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "simulator",
            "private_key": _private(key).decode(),
            "public_key": public.decode(),
            "client_email": f"push@{PROJECT}.iam.gserviceaccount.com",
            "client_id": "1",
        }
    made.service_account.write_text(json.dumps(account | {"token_uri": token_uri}, indent=1))
    if not made.apns_key.exists():
        made.apns_key.write_bytes(_private(ec.generate_private_key(ec.SECP256R1())))
    if not made.vapid_private.exists():
        vapid = ec.generate_private_key(ec.SECP256R1())
        made.vapid_private.write_bytes(_private(vapid))
        made.vapid_public.write_bytes(vapid.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return made


def base64url(raw: bytes) -> str:
    """Without padding."""
    return urlsafe_b64encode(raw).decode().rstrip("=")
