"""Templates: forms, locales, escaping, and what senders are told when data is missing."""

import re
from pathlib import Path

import pytest
from pydantic import JsonValue

from activities.templates import TemplateBroken, TemplateDataError, Templates, UnknownTemplate
from contracts.payloads.notification import Route
from runtime.settings import BUILT_IN_TEMPLATES

INVOICE: dict[str, JsonValue] = {
    "number": "7",
    "amount_cents": 129900,
    "currency": "EUR",
    "url": "https://a.example/7?x=1&y=2",
}


@pytest.fixture(scope="module")
def built_in() -> Templates:
    return Templates(BUILT_IN_TEMPLATES)


def folder(tmp_path: Path, toml: str = "", **forms: str) -> Templates:
    place = tmp_path / "mine"
    (place / "en").mkdir(parents=True)
    (place / "template.toml").write_text(toml or 'category = "c"\nchannels = ["email"]\n')
    for name, text in ({"subject_txt": "s", "body_txt": "b"} | forms).items():
        (place / "en" / name.replace("_", ".")).write_text(text)
    return Templates(tmp_path)


def test_every_built_in_template_renders_its_example_in_every_locale(built_in: Templates) -> None:
    built_in.check()
    assert built_in.names() == [
        "comment_mention",
        "daily_digest",
        "digest",
        "invoice_paid",
        "payment_failed",
        "report_ready",
        "security_alert",
        "welcome",
    ]
    assert all(built_in.get(name).locales == ("de", "en") for name in built_in.names())


def test_all_forms_say_the_same(built_in: Templates) -> None:
    made = built_in.render("invoice_paid", "en", INVOICE, unsubscribe_url="https://a.example/u")
    assert made.subject == "Invoice 7 is paid"
    assert made.text == ("Thank you: we received 1,299.00 EUR for invoice 7.\n\nhttps://a.example/7?x=1&y=2\n")
    assert made.html is not None
    for wanted in (
        "1,299.00 EUR",
        'href="https://a.example/7?x=1&amp;y=2"',
        'href="https://a.example/u"',
        "Unsubscribe",
    ):
        assert wanted in made.html
    assert made.slack_blocks is not None
    assert made.slack_blocks[0]["text"] == {
        "type": "mrkdwn",
        "text": "*Invoice 7 is paid*\nWe received 1,299.00 EUR.",
    }
    assert (made.push_title, made.push_body, made.url) == (
        "Invoice 7 is paid",
        "We received 1,299.00 EUR.",
        "https://a.example/7?x=1&y=2",
    )


@pytest.mark.parametrize(
    ("locale", "subject"),
    [
        ("de", "Rechnung 7 ist bezahlt"),
        ("de-AT", "Rechnung 7 ist bezahlt"),
        ("fr", "Invoice 7 is paid"),
        (None, "Invoice 7 is paid"),
    ],
)
def test_the_nearest_locale_is_used(built_in: Templates, locale: str | None, subject: str) -> None:
    assert built_in.render("invoice_paid", locale, INVOICE).subject == subject


def test_all_missing_data_is_told_at_once_with_where_it_is_needed(built_in: Templates) -> None:
    with pytest.raises(TemplateDataError) as raised:
        built_in.render("invoice_paid", "en", {"number": "7", "url": "https://a.example"})
    assert str(raised.value) == (
        "the template 'invoice_paid' needs data that is missing: "
        "`amount_cents` (in body.txt, body.html, slack.json, push.json); "
        "`currency` (in body.txt, body.html, slack.json, push.json). Given: number, url"
    )


def test_missing_parts_of_data_are_told(tmp_path: Path) -> None:
    mine = folder(tmp_path, body_txt="{{ order.total }}")
    with pytest.raises(TemplateDataError, match=r"has no attribute 'total'.*mine/en/body\.txt"):
        mine.render("mine", "en", {"order": {"sum": 3}})


def test_optional_data_may_be_left_out(built_in: Templates) -> None:
    data = {"title": "Usage", "url": "https://a.example"}
    assert "works until" not in built_in.render("report_ready", "en", data).text
    assert "works until Friday" in built_in.render("report_ready", "en", data | {"expires": "Friday"}).text


def test_data_cannot_break_out_of_any_form(built_in: Templates) -> None:
    evil = '"}]<script>alert(1)</script>\n<!channel> & {{ 7 * 7 }}\\'
    made = built_in.render("invoice_paid", "en", INVOICE | {"number": evil})
    assert "\n" not in made.subject
    assert made.html is not None
    assert "<script>" not in made.html
    assert made.slack_blocks is not None
    block = made.slack_blocks[0]["text"]
    assert isinstance(block, dict)
    assert "<!channel>" not in str(block["text"])
    assert "&lt;!channel&gt; &amp; {{ 7 * 7 }}\\" in str(block["text"])
    assert made.push_title is not None
    assert evil in made.push_title


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//a.example",
        "a.example",
        "",
        "https://user:pw@a.example",
        "https://a.example/><!channel> <https://evil.example|Open",
        "https://a.example\\@evil.example",
        "https://a.example/x y",
    ],
)
def test_only_web_links_stand_behind_a_button(built_in: Templates, url: str) -> None:
    with pytest.raises(TemplateDataError, match=r"a link must (be an http or https URL|be free of|not have a user)"):
        built_in.render("invoice_paid", "en", INVOICE | {"url": url})


@pytest.mark.parametrize(
    ("cents", "text"), [(0, "0.00 EUR"), (5, "0.05 EUR"), (-120, "-1.20 EUR"), (123456789, "1,234,567.89 EUR")]
)
def test_money(built_in: Templates, cents: int, text: str) -> None:
    assert text in built_in.render("invoice_paid", "en", INVOICE | {"amount_cents": cents}).text


def test_money_takes_whole_cents_only(built_in: Templates) -> None:
    with pytest.raises(TemplateDataError, match=r"needs a whole number of cents, not 12\.5"):
        built_in.render("invoice_paid", "en", INVOICE | {"amount_cents": 12.5})


def test_the_sandbox_holds(tmp_path: Path) -> None:
    mine = folder(tmp_path, body_txt="{{ ''.__class__.__mro__ }}")
    with pytest.raises((TemplateBroken, TemplateDataError)):
        mine.render("mine", "en", {})


def test_a_form_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    mine = folder(tmp_path, body_txt="{% for x in range(90000) %}{{ a }}{% endfor %}")
    with pytest.raises(TemplateDataError, match="at most 262,144 are sent"):
        mine.render("mine", "en", {"a": "x" * 100})


@pytest.mark.parametrize(
    ("toml", "forms", "told"),
    [
        ("", {"push_json": "[1]"}, "must be an object of texts"),
        ("", {"push_json": '{"title": 3}'}, "must be an object of texts"),
        ('category = "c"\nchannels = ["fax"]\n', {}, "template.toml"),
        ('category = "c"\nchannels = ["email"]\ncolour = 1\n', {}, "colour"),
        ('category = "c"\nchannels = ["email"]\ndefault_locale = "fr"\n', {}, "no folder for its default locale 'fr'"),
        ("", {"body_txt": "{% if %}"}, "body.txt"),
        ("", {"push_json": '{"title": }'}, "no JSON"),
        ("", {"slack_json": '{"title": "x"}'}, "must be a list of blocks"),
        ("", {"body_htm": "x"}, "may have"),
        ("", {"body_txt": "{{ name }}"}, "does not render with its own"),
    ],
)
def test_a_broken_template_is_found_at_the_start(tmp_path: Path, toml: str, forms: dict[str, str], told: str) -> None:
    with pytest.raises(TemplateBroken, match=told):
        folder(tmp_path, toml, **forms).check()


def test_an_unknown_name_is_answered_with_near_ones(built_in: Templates) -> None:
    with pytest.raises(UnknownTemplate, match="no template 'invoice_payed'; there are: invoice_paid"):
        built_in.get("invoice_payed")
    with pytest.raises(UnknownTemplate):
        built_in.get("../templates/welcome")


def test_text_alone_becomes_a_mail_with_safe_links(built_in: Templates) -> None:
    made = built_in.from_text("Hi\nthere", "One <b>\n\nSee https://a.example/x.", url="https://a.example")
    assert made.subject == "Hi there"
    assert made.text == "One <b>\n\nSee https://a.example/x.\n\nhttps://a.example\n"
    assert made.html is not None
    assert "One &lt;b&gt;" in made.html
    assert '<a href="https://a.example/x"' in made.html
    assert "&amp;lt;" not in made.html


def test_one_message_is_no_plural(built_in: Templates) -> None:
    item: dict[str, JsonValue] = {"subject": "A", "text": "B", "url": ""}
    assert built_in.render("digest", "en", {"items": [item], "count": 1}).subject == "1 new message"
    many = built_in.render("digest", "de", {"items": [item] * 3, "count": 60})
    assert many.subject == "60 neue Nachrichten"
    assert "und 57 weitere" in many.text


def test_a_template_says_where_and_how_it_goes(built_in: Templates) -> None:
    alert = built_in.get("security_alert")
    assert (alert.channels, alert.every, alert.mandatory, alert.after_lost_reply) == (
        (Route.EMAIL, Route.PUSH),
        True,
        True,
        "resend",
    )


def test_no_locale_is_checked_alone(tmp_path: Path) -> None:
    mine = folder(tmp_path)
    german = tmp_path / "mine/de"
    german.mkdir()
    (german / "subject.txt").write_text("s")
    (german / "body.txt").write_text("{{ extra | upper }}")
    assert mine.render("mine", "en", {}).text == "b\n"
    with pytest.raises(TemplateDataError, match=r"`extra` \(in body\.txt\)"):
        mine.check_data("mine", {})
    mine.check_data("mine", {"extra": "x"})


def test_null_is_missing_data(built_in: Templates) -> None:
    with pytest.raises(
        TemplateDataError, match=r"missing: `number` .* Given: amount_cents, currency, number \(null\), url"
    ):
        built_in.render("invoice_paid", "en", INVOICE | {"number": None})


@pytest.mark.parametrize(
    ("body", "data", "told"),
    [
        (
            "{{ a }}",
            {"a": {"b": [1]}},
            r"mine/en/body\.txt: a value that is printed is a dict: give a text or a number",
        ),
        ("{{ a }}", {"a": [1]}, "a value that is printed is a list"),
        ("{{ a.b }}", {"a": {"b": None}}, "a value that is printed is None: give the value"),
        ("{{ a | money(b) }}", {"a": 1, "b": None}, "missing: `b`"),
        ("{{ a | money(b) }}", {"a": 1, "b": ["EUR"]}, "`money` needs a currency such as EUR"),
        ("{{ a.strip() }}", {"a": 5}, "missing"),
        ("{{ a | paragraphs }}", {"a": 5}, "the data does not fit"),
        ("{{ a.pop('zz') }}", {"a": {}}, "body"),
        ("{{ (a.split())[3] }}", {"a": "x"}, "missing"),
    ],
)
def test_a_value_that_would_be_printed_as_python_is_refused(
    tmp_path: Path, body: str, data: dict[str, JsonValue], told: str
) -> None:
    with pytest.raises((TemplateDataError, TemplateBroken), match=told):
        folder(tmp_path, body_txt=body).render("mine", "en", data)


def test_optional_data_that_is_null_is_not_missing(tmp_path: Path) -> None:
    toml = 'category = "c"\nchannels = ["email"]\noptional = ["b"]\n'
    mine = folder(tmp_path, toml, body_txt="a{% if b %} {{ b }}{% endif %}")
    assert mine.render("mine", "en", {"b": None}).text == "a\n"
    assert mine.render("mine", "en", {"b": 0.5}).text == "a 0.5\n"


def test_the_unsubscribe_link_may_stand_in_any_form_and_is_empty_where_there_is_none(tmp_path: Path) -> None:
    mine = folder(tmp_path, body_txt="b {{ unsubscribe_url }}")
    assert mine.render("mine", "en", {}).text == "b\n"
    assert mine.render("mine", "en", {}, unsubscribe_url="https://a.example/u").text == "b https://a.example/u\n"


def test_a_form_that_the_data_makes_no_json_is_told_with_its_name(tmp_path: Path) -> None:
    mine = folder(tmp_path, push_json='{"title": {{ n }} }')
    with pytest.raises(TemplateDataError, match=r"mine/en/push\.json is no JSON once rendered with this data"):
        mine.render("mine", "en", {"n": "x y"})


def test_a_links_ampersand_is_escaped_in_a_slack_text_and_plain_behind_a_button(tmp_path: Path) -> None:
    slack = (
        '[{"type": "section", "text": {"type": "mrkdwn", "text": "<{{ url | link }}|Open> {{ name }}"}},'
        ' {"type": "actions", "elements": [{"type": "button", "url": "{{ url | link }}"}]}]'
    )
    blocks = (
        folder(tmp_path, slack_json=slack)
        .render("mine", "en", {"url": "https://a.example/?x=1&lt=2", "name": "<!here>"})
        .slack_blocks
    )
    assert blocks is not None
    assert blocks[0]["text"] == {
        "type": "mrkdwn",
        "text": "<https://a.example/?x=1&amp;lt=2|Open> &lt;!here&gt;",
    }
    assert blocks[1]["elements"] == [{"type": "button", "url": "https://a.example/?x=1&lt=2"}]


@pytest.mark.parametrize(
    ("slack", "told"),
    [
        (
            '[{"type": "section", "text": {"type": "mrkdwn", "text": "{{ a }}"}}]',
            "text of a section has 3,001 characters",
        ),
        ('[{"type": "section", "fields": [{"type": "mrkdwn", "text": "{{ a }}"}]}]', "field of a section has 3,001"),
        ('[{"type": "header", "text": {"type": "plain_text", "text": "{{ a }}"}}]', "Slack takes 150"),
        ('[{% for x in range(51) %}{"type": "divider"}{{ "," if x < 50 }}{% endfor %}]', "51 blocks; Slack takes 50"),
    ],
)
def test_what_slack_would_refuse_for_its_length_is_refused_before(tmp_path: Path, slack: str, told: str) -> None:
    mine = folder(tmp_path, slack_json=slack, body_txt="{{ a | truncate(9) }}")
    with pytest.raises(TemplateDataError, match=told):
        mine.render("mine", "en", {"a": "x" * 3_001})


def test_slack_blocks_of_ones_own_have_the_same_limits(built_in: Templates) -> None:
    section: dict[str, JsonValue] = {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3_001}}
    with pytest.raises(TemplateDataError, match="`slack_blocks`: the text of a section has 3,001 characters"):
        built_in.from_text("a", "b", slack_blocks=[section])


def test_a_long_comment_reaches_slack_in_part_and_mail_with_its_lines(built_in: Templates) -> None:
    data: dict[str, JsonValue] = {
        "author": "Grace",
        "document": "Plan",
        "excerpt": "one <b>\r\ntwo\n" + "& " * 4_000,
        "url": "https://a.example",
    }
    made = built_in.render("comment_mention", "en", data)
    assert made.html is not None
    assert "one &lt;b&gt;<br>\ntwo<br>" in made.html
    assert made.text.startswith("Grace wrote in Plan:\n\n> one <b>\n> two\n> & &")
    assert made.slack_blocks is not None
    assert "&lt;b&gt;" in str(made.slack_blocks[0]["text"])


def test_a_subject_is_one_line_that_a_mail_header_can_hold(built_in: Templates) -> None:
    data: dict[str, JsonValue] = {"name": "A " * 400, "url": "https://a.example"}
    subject = built_in.render("welcome", "en", data).subject
    assert (len(subject), subject[:12], subject[-1]) == (255, "Welcome, A A", "…")
    assert len(built_in.from_text("x" * 300, "b").subject) == 255


def test_no_mail_is_wider_than_its_window_however_long_a_word(built_in: Templates) -> None:
    html = built_in.render("invoice_paid", "en", INVOICE).html
    assert html is not None
    assert html.count("table-layout:fixed") == 2
    assert "overflow-wrap:anywhere" in html


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("rule", "behind"),
    [(r"\.text a", r"\.card"), (r"\.text \.button a", r"\.text \.button"), (r"\.quiet, \.quiet a", r"\.page")],
)
def test_links_can_be_read_in_dark_mode(rule: str, behind: str) -> None:
    dark = (BUILT_IN_TEMPLATES / "_layout/layout.html").read_text().split("prefers-color-scheme: dark")[1]
    front = re.search(rf"^  {rule} {{ color: (#\w{{6}})", dark, re.MULTILINE)
    back = re.search(rf"^  {behind} {{ background: (#\w{{6}})", dark, re.MULTILINE)
    assert front and back
    lighter, darker = sorted((luminance(front[1]), luminance(back[1])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
