"""One-click unsubscription (https://www.rfc-editor.org/rfc/rfc8058): a signed link that names nobody.

Mail programs post to it without any login, years later; so it never expires, and it can only unsubscribe.
"""

from dataclasses import dataclass

from itsdangerous import BadSignature, URLSafeSerializer

SALT = "holdfast.unsubscribe"


class InvalidLink(Exception):
    """This is no unsubscribe link of this installation, or it was cut short; use the whole link of the mail."""


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """What the link asks: no more mails of `categories` to `target_id`. A digest has those of all it carries."""

    tenant: str
    target_id: str
    categories: tuple[str, ...]


class Unsubscribing:
    """Makes and reads the links.

    Args:
        key: the installation's signing key; another one makes all earlier links invalid.
        public_url: how recipients reach the API.
    """

    def __init__(self, key: str, public_url: str) -> None:
        self._signed = URLSafeSerializer(key, salt=SALT)
        self._public_url = public_url

    def url(self, tenant: str, target_id: str, category: str) -> str:
        """The link for one address and category, or several joined by commas."""
        return f"{self._public_url}/v1/unsubscribe/{self._signed.dumps([tenant, target_id, category])}"

    def read(self, token: str) -> Unsubscription:
        """What a link's last part asks.

        Raises:
            InvalidLink: the signature does not match.
        """
        try:
            tenant, target_id, category = self._signed.loads(token)
        except (BadSignature, TypeError, ValueError) as error:
            raise InvalidLink(InvalidLink.__doc__) from error
        return Unsubscription(tenant, target_id, tuple(category.split(",")))
