"""Addresses: one spelling each, and a refusal in words where no vendor could take them."""

import pytest

from activities.web_url import InvalidUrl, web_url
from contracts.addresses import normalised
from contracts.payloads.notification import ChannelName
from starter.address_request import checked_address

EMAIL, SLACK, FCM, APNS = ChannelName.EMAIL, ChannelName.SLACK, ChannelName.FCM, ChannelName.APNS


@pytest.mark.parametrize(
    ("channel", "address", "stored"),
    [
        (EMAIL, " Case@Example.COM ", "case@example.com"),
        (EMAIL, "ada@bücher.example", "ada@xn--bcher-kva.example"),
        (EMAIL, "ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        (EMAIL, "ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        (EMAIL, "jo\u0308rg@example.com", "jörg@example.com"),
        (EMAIL, "JÖRG@example.com", "jörg@example.com"),
        (EMAIL, '"a@b"@Example.com', '"a@b"@example.com'),
        (EMAIL, "no address", "no address"),
        (EMAIL, "ada@ü..example", "ada@ü..example"),
        (SLACK, " C024BE91L\n", "C024BE91L"),
        (FCM, "aB:c_-d ", "aB:c_-d"),
        (APNS, "AB" * 32, "ab" * 32),
        (ChannelName.WEBHOOK, " https://A.example/Path ", "https://A.example/Path"),
    ],
)
def test_an_address_has_one_spelling_and_keeps_it(channel: ChannelName, address: str, stored: str) -> None:
    assert normalised(channel, address) == stored
    assert normalised(channel, stored) == stored


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        (EMAIL, "a.b+c@example.com"),
        (EMAIL, "jörg@bücher.example.com"),
        (SLACK, "C024BE91L"),
        (SLACK, "W012A3CDE"),
        (SLACK, "#général-2"),
        (FCM, "fGhI1jK:APA91b_x-Y"),
        (APNS, "5F" * 32),
        (APNS, "5f" * 80),
        (ChannelName.WEBHOOK, "https://hooks.example.com/a?b=c"),
    ],
)
def test_what_a_vendor_could_take_is_taken(channel: ChannelName, address: str) -> None:
    assert checked_address(channel, address)


@pytest.mark.parametrize(
    ("channel", "address", "words"),
    [
        (EMAIL, "", "not a mail address"),
        (EMAIL, "not an address", "not a mail address"),
        (EMAIL, "Ada <ada@example.com>", "not a mail address"),
        (SLACK, "", "C024BE91L"),
        (SLACK, "general", "C024BE91L"),
        (SLACK, "C1", "C024BE91L"),
        (SLACK, "Cabcdef", "C024BE91L"),
        (SLACK, "C024 BE91L", "C024BE91L"),
        (SLACK, "#<!channel>", "C024BE91L"),
        (FCM, "a/../b?x", "letters, digits and : _"),
        (FCM, "tok\0en", "letters, digits and : _"),
        (APNS, "5f", "at least 64 digits"),
        (APNS, "5f 5f" * 16, "without spaces"),
        (APNS, "5f" * 32 + "0", "hexadecimal"),
        (ChannelName.WEBHOOK, "https://[x", "the endpoint's URL: a link must be an http or https URL with a host"),
        (ChannelName.WEB_PUSH, "https://user:pw@push.example", "must not have a user name"),
    ],
)
def test_what_no_vendor_could_take_is_refused_in_words(channel: ChannelName, address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        checked_address(channel, address)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example",
        "HTTPS://A.example:8443/x?y=1&z=ü#f",
        "http://[::1]:80/",
        "https://a.example/%20?q=%3C%7C%3E",
        "https://a.example/😀",
    ],
)
def test_a_web_url_is_taken_as_it_is(url: str) -> None:
    assert web_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https://[x",
        "https://:80",
        "http:// ",
        "https://a.example:99999",
        "//a.example",
        "a.example",
        "javascript:alert(1)",
        "ftp://a.example",
        "https://user:pw@a.example",
        "https://user@a.example",
        "https://a.example\\@evil.example",
        "https://a.example/\nx",
        "ht\ntps://a.example",
        " https://a.example",
        "https://a.example/x y",
        "https://a.example/\u202e",
        "https://a.example/\0",
        "https://a.example/><!channel> <https://evil.example|Open",
        'https://a.example/"onmouseover=x',
        "https://a.example/|",
        "https://a.example/" + "x" * 2_000,
    ],
)
def test_a_url_that_is_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl, match="a link m"):
        web_url(url)
