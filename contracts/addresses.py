"""One spelling per address, so that a bounce, an unsubscription and a target that mean the same mailbox meet."""

import unicodedata

import idna

from contracts.payloads.notification import ChannelName


def normalised(channel: ChannelName, address: str) -> str:
    """The address as it is stored and compared; what is no address comes back merely stripped.

    Space around an address means nothing in any channel. Mail: the domain in lower-case A-labels
    (https://www.rfc-editor.org/rfc/rfc5890#section-2.3.2.1), the local part composed (NFC) and in lower case. Its lower
    case is deliberate: RFC 5321 lets a server distinguish `Ada@` from `ada@`, no provider in practice does, and bounces
    come back in either. APNs: lower-case hexadecimal. Everything else distinguishes case.
    """
    stripped = address.strip()
    if channel is ChannelName.EMAIL:
        return _mail(stripped)
    return stripped.lower() if channel is ChannelName.APNS else stripped


def _mail(address: str) -> str:
    local, at, domain = address.rpartition("@")
    if not at:
        return address
    return f"{unicodedata.normalize('NFC', local).lower()}@{a_labels(domain)}"


def a_labels(domain: str) -> str:
    """`xn--bcher-kva.example` for `Bücher.example`; in lower case where it has no such form."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode().lower()
    except idna.IDNAError:
        return domain.lower()
