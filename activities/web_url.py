"""URLs that people are sent: only such as mean the same to whoever reads and to whatever opens them."""

from urllib.parse import urlsplit

MAX_CHARACTERS = 2_000  # what browsers, mail programs and Slack's buttons (3,000) all take
DELIMITERS = frozenset('<>|"\\')  # end a link in HTML or Slack, or are read as a slash


class InvalidUrl(ValueError):
    """This is no URL that may be sent."""


def web_url(text: str) -> str:
    """The URL, checked.

    Raises:
        InvalidUrl: it is not http or https, names no host, has a user name, or has characters that no URL has.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidUrl(f"a link may have {MAX_CHARACTERS:,} characters, not {len(text):,}")
    if any(character.isspace() or not character.isprintable() or character in DELIMITERS for character in text):
        raise InvalidUrl(
            f'a link must be free of spaces, control characters and <>|"\\ (percent-encode them): {text!r}'
        )
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidUrl(
            f"a link must be an http or https URL with a host, such as https://app.example.com, not {text!r}"
        )
    if "@" in parts.netloc:
        raise InvalidUrl(f"a link must not have a user name or password: {text!r}")
    return text
