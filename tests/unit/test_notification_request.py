"""What a request may say, and that a refusal is in the words of who sent it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from contracts.payloads.notification import ChannelName
from starter.notification_request import NotificationBody
from starter.person_request import PersonBody, PreferenceBody, SuppressionBody
from starter.request_model import MAX_DEPTH, RequestModel, in_words
from starter.tenant import checked_tenant
from store.suppressions import Reason

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ADA = {"channel": "email", "address": "ada@example.com"}
TEXT = {"subject": "Hi", "text": "There."}
BODY: dict[str, Any] = {"recipient": ADA, "content": TEXT}


def refusal(model: type[RequestModel], body: Any) -> list[dict[str, str]]:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    return in_words(raised.value.errors())


def notification(**fields: Any) -> NotificationBody:
    return NotificationBody.model_validate(BODY | fields)


@pytest.mark.parametrize(
    ("recipient", "field", "problem"),
    [
        (
            {"channel": "email", "address": "ada"},
            "recipient",
            "not a mail address: An email address must have an @-sign.",
        ),
        ({"channel": "email"}, "recipient.address", "is missing"),
        ({"channel": "fax", "address": "1"}, "recipient.channel", "Input should be 'email', 'slack',"),
        ("a b", "recipient", "String should match pattern"),
        (None, "recipient", "say a person's id (a text), or an address (an object with `channel` and `address`)"),
        ([ADA], "recipient", "say a person's id (a text), or an address"),
    ],
)
def test_a_wrong_recipient_is_told_by_what_was_sent(recipient: Any, field: str, problem: str) -> None:
    (told,) = refusal(NotificationBody, BODY | {"recipient": recipient})
    assert told["field"] == field
    assert told["problem"].startswith(problem)


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        (None, NOW + timedelta(hours=24)),
        ("PT2H", NOW + timedelta(hours=2)),
        ("P7D", NOW + timedelta(days=7)),
        (timedelta(minutes=5), NOW + timedelta(minutes=5)),
        ("2026-11-24T10:00:00Z", NOW + timedelta(hours=1)),
        ("2026-11-24T12:00:00+02:00", datetime(2026, 11, 24, 12, 0, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_a_message_expires_at_a_time_or_after_a_duration(expires: Any, moment: datetime) -> None:
    body = notification(expires=expires)
    assert body.expires_at(NOW) == moment
    assert NotificationBody.model_validate(body.model_dump(mode="json")).expires_at(NOW) == moment


@pytest.mark.parametrize(
    "expires",
    [
        3600,
        -5,
        1e300,
        True,
        "3600",
        "",
        "tomorrow",
        "NaN",
        "01:00:00",
        "2026-11-26",
        "2026-12-01T00:00:00",
        "P9999999999D",
    ],
)
def test_what_could_mean_two_times_is_refused_with_an_example(expires: Any) -> None:
    (told,) = refusal(NotificationBody, BODY | {"expires": expires})
    assert told["field"] == "expires"
    assert told["problem"].startswith(
        "say a time with its time zone such as 2026-11-24T09:00:00Z, or a duration such as PT2H"
    )


@pytest.mark.parametrize(
    ("expires", "words"),
    [
        ("P999999999D", "at most 7 days away"),
        ("-P999999999D", "already past"),
        ("PT168H1S", "at most 7 days away"),
        ("PT0S", "already past"),
        ("9999-12-31T23:59:59-23:59", "at most 7 days away"),
        ("0001-01-01T00:00:00+23:59", "already past"),
    ],
)
def test_a_time_that_is_too_far_away_is_refused_and_no_overflow(expires: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        notification(expires=expires).expires_at(NOW)


def nested(depth: int) -> str:
    return '{"recipient": "ada", "template": "t", "data": {"a": %s}}' % ("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"template": "a\\u0000"}', "template contains a NUL character"),
        ('{"data": {"list": [1, "x\\u0000"]}}', "data.list[1] contains a NUL character"),
        ('{"data": {"a\\u0000": 1}}', "the name of a field contains a NUL character"),
        ('{"data": {"name": "\\ud800"}}', "data.name contains half a surrogate pair"),
        ('{"data": {"\\udfff": {"b": NaN}}}', "data.\\udfff.b is NaN or Infinity, which JSON does not have"),
        ('{"data": {"\\udfff": 1}}', "the name of a field contains half a surrogate pair"),
        ('{"recipient": {"channel": "slack", "details": {"a": Infinity}}}', "recipient.details.a is NaN or Infinity"),
        ('{"content": {"slack_blocks": [{"a": "\\ud800"}]}}', "content.slack_blocks[0].a contains half a surrogate"),
        ('{"unknown\\ud800": 1}', "the name of a field contains half a surrogate pair"),
        ('"\\ud800"', "the body contains half a surrogate pair"),
        (nested(MAX_DEPTH), f"is nested deeper than {MAX_DEPTH} levels"),
        (nested(900), f"is nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_what_the_store_cannot_hold_is_refused_wherever_it_stands(text: str, words: str) -> None:
    (told,) = refusal(NotificationBody, json.loads(text))
    assert words in told["problem"]
    told["problem"].encode()  # it goes into an answer


def test_what_the_store_can_hold_is_taken() -> None:
    data = {"name": "Zoë 😀\u2028", "numbers": [1.5, -3, None, True], "deep": json.loads("[" * 40 + "]" * 40)}
    body = NotificationBody.model_validate({"recipient": "ada", "template": "t", "data": data})
    assert body.data == data


def test_data_and_details_have_a_limit_in_bytes_as_json() -> None:
    kept = {"recipient": "ada", "template": "t"}
    assert NotificationBody.model_validate(kept | {"data": {"a": "ü" * 32_000}})
    (told,) = refusal(NotificationBody, kept | {"data": {"a": "ü" * 33_000}})
    assert told == {
        "field": "data",
        "problem": "has 66,009 bytes as JSON, of at most 65,536: attach or link the rest",
    }
    slack = {"channel": "slack", "address": "C024BE91L"}
    assert PersonBody.model_validate({"targets": [slack | {"details": {"a": "x" * 8_000}}]})
    (told,) = refusal(PersonBody, {"targets": [slack | {"details": {"a": "x" * 8_192}}]})
    assert told == {"field": "targets.0", "problem": "`details` may have 8 KiB"}


@pytest.mark.parametrize(
    "url", ["https://[x", "https://", "javascript:alert(1)", "https://a:b@c.example", "https://a b"]
)
def test_the_url_of_a_message_is_a_web_link(url: str) -> None:
    (told,) = refusal(NotificationBody, BODY | {"content": TEXT | {"url": url}})
    assert told["field"] == "content.url"
    assert told["problem"].startswith("a link must")


@pytest.mark.parametrize("field", ["subject", "text"])
def test_a_message_of_spaces_says_nothing(field: str) -> None:
    (told,) = refusal(NotificationBody, BODY | {"content": TEXT | {field: " \n "}})
    assert told == {"field": f"content.{field}", "problem": "must be more than spaces"}


@pytest.mark.parametrize(
    ("changed", "field", "problem"),
    [
        ({"address": ""}, "address", "String should have at least 1 character"),
        ({"address": "not an address"}, "", "not a mail address"),
        ({"address": "x" * 5_000}, "address", "String should have at most 2048 characters"),
        ({"address": "a\0b@example.com"}, "", "address contains a NUL character"),
        ({"categroy": "offers"}, "categroy", "is no field of this request; is it misspelt?"),
        (
            {"reason": "dead"},
            "reason",
            "'dead' cannot be reported; say bounced, complained, unsubscribed or mailbox_full",
        ),
        (
            {"reason": "nope"},
            "reason",
            "'nope' cannot be reported; say bounced, complained, unsubscribed or mailbox_full",
        ),
    ],
)
def test_a_suppression_says_what_it_is_about_or_is_refused(changed: dict[str, str], field: str, problem: str) -> None:
    (told,) = refusal(SuppressionBody, {"channel": "email", "address": "x@y.example"} | changed)
    assert told["field"] == field
    assert told["problem"].startswith(problem)


def test_a_suppression_is_of_the_address_as_it_is_stored() -> None:
    body = SuppressionBody.model_validate({"channel": "email", "address": " X@Y.Example ", "reason": "complained"})
    assert (body.address, body.reason) == ("x@y.example", Reason.COMPLAINED)


def test_a_preference_is_about_every_channel_there_is() -> None:
    annotation = PreferenceBody.model_fields["channel"].annotation
    assert set(get_args(annotation)) == {"*", *ChannelName}
    assert refusal(PreferenceBody, {"category": "A B", "allowed": True})[0]["field"] == "category"
    assert PreferenceBody(category="*", allowed=True).channel == "*"


@pytest.mark.parametrize("name", ["", "*", "a b", "a/b", "a:b", "ä", "-a", "a" * 65, "a\n", "[/x]"])
def test_a_tenant_that_would_not_fit_into_ids_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a tenant is 1 to 64 letters, digits"):
        checked_tenant(name)


def test_a_tenants_name_is_taken() -> None:
    assert [checked_tenant(name) for name in ("acme", "Acme-2.eu_1", "a" * 64)] == ["acme", "Acme-2.eu_1", "a" * 64]
