"""The channels that the settings configure."""

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parseaddr
from typing import Literal
from urllib.parse import unquote, urlsplit

from activities.adapters.channels.apns import Apns
from activities.adapters.channels.channel import Channel
from activities.adapters.channels.email import Email
from activities.adapters.channels.fcm import Fcm
from activities.adapters.channels.slack import Slack
from activities.adapters.channels.web_push import DEFAULT_PUSH_HOSTS, WebPush
from activities.adapters.channels.webhook import Webhook
from contracts.payloads.notification import ChannelName
from runtime.settings import Settings


class ChannelMisconfigured(Exception):
    """A channel is half configured; the message names the settings."""


def channels(settings: Settings) -> dict[ChannelName, Channel]:
    """One of each that is configured; webhooks always.

    Raises:
        ChannelMisconfigured: a setting is missing beside others, or makes no sense.
    """
    found: list[Channel | None] = [
        _email(settings),
        Slack(
            token=settings.slack_token.get_secret_value(),
            workspace=settings.slack_workspace,
            api_url=settings.slack_api_url,
        )
        if settings.slack_token
        else None,
        _fcm(settings),
        _apns(settings),
        _web_push(settings),
        Webhook(allowed_networks=settings.webhook_networks),
    ]
    return {channel.name: channel for channel in found if channel is not None}


def _email(settings: Settings) -> Channel | None:
    if settings.smtp_url is None:
        return None
    url = urlsplit(settings.smtp_url.get_secret_value())
    if url.scheme not in {"smtp", "smtps"} or not url.hostname:
        raise ChannelMisconfigured("HOLDFAST_SMTP_URL must be smtp://host:port or smtps://host:port")
    if "@" not in parseaddr(settings.mail_from)[1]:
        raise ChannelMisconfigured("HOLDFAST_MAIL_FROM must be an address such as `Acme <no-reply@acme.example>`")
    tls: Literal["starttls", "implicit", "none"] = "implicit" if url.scheme == "smtps" else "starttls"
    if url.scheme == "smtp" and settings.smtp_insecure:
        tls = "none"
    return Email(
        host=url.hostname,
        port=url.port or (465 if url.scheme == "smtps" else 587),
        tls=tls,
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password) if url.password else None,
        sender=settings.mail_from,
        connections=settings.smtp_connections,
    )


def _fcm(settings: Settings) -> Channel | None:
    if settings.fcm_credentials_file is None:
        return None
    with _told("HOLDFAST_FCM_CREDENTIALS_FILE"):
        return Fcm(credentials_file=settings.fcm_credentials_file, api_url=settings.fcm_api_url)


def _apns(settings: Settings) -> Channel | None:
    if settings.apns_key_file is None:
        return None
    for name in ("apns_key_id", "apns_team_id", "apns_topic"):
        if not getattr(settings, name):
            raise ChannelMisconfigured(f"HOLDFAST_{name.upper()} is missing beside HOLDFAST_APNS_KEY_FILE")
    with _told("HOLDFAST_APNS_KEY_FILE"):
        return Apns(
            key_file=settings.apns_key_file,
            key_id=settings.apns_key_id,
            team_id=settings.apns_team_id,
            topic=settings.apns_topic,
            environment=settings.apns_environment,
            url=settings.apns_url or None,
        )


def _web_push(settings: Settings) -> Channel | None:
    if settings.vapid_private_key_file is None:
        return None
    if settings.vapid_public_key_file is None or not settings.vapid_subject.startswith(("mailto:", "https:")):
        raise ChannelMisconfigured(
            "HOLDFAST_VAPID_PRIVATE_KEY_FILE needs HOLDFAST_VAPID_PUBLIC_KEY_FILE and HOLDFAST_VAPID_SUBJECT "
            "(mailto:… or https:…) beside it"
        )
    with _told("HOLDFAST_VAPID_PRIVATE_KEY_FILE or HOLDFAST_VAPID_PUBLIC_KEY_FILE"):
        return WebPush(
            private_key_file=settings.vapid_private_key_file,
            public_key_file=settings.vapid_public_key_file,
            subject=settings.vapid_subject,
            allowed_hosts=(*DEFAULT_PUSH_HOSTS, *settings.web_push_hosts),
        )


@contextmanager
def _told(setting: str) -> Iterator[None]:
    """Name the setting when its file cannot be read or holds something else."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{setting} is not usable: {error}"
        raise ChannelMisconfigured(msg) from error
