"""Message templates: Jinja2 in a sandbox, a folder per template, a folder per locale in it.

    templates/<name>/template.toml              category, channels, policy, example data
    templates/<name>/<locale>/subject.txt       required, one line
                              body.txt          required
                              body.html         autoescaped; extends _layout
                              slack.json        Slack blocks
                              push.json         {"title", "body", "url"}

In JSON forms every value is escaped for a JSON string. Data that is missing is told to the sender, all at once; None
where a template needs a value is missing data, and a dict or list is never printed.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, UndefinedError, meta, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import urlize
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from activities.adapters.channels.channel import Content
from activities.slack_blocks import too_long, with_plain_urls
from activities.web_url import InvalidUrl, web_url
from contracts.payloads.notification import Route

LAYOUT = "_layout"
FORMS = ("subject.txt", "body.txt", "body.html", "slack.json", "push.json")
REQUIRED = ("subject.txt", "body.txt")
MAX_FORM_CHARACTERS = 256 * 1024
MAX_SUBJECT_CHARACTERS = 255  # nobody reads more, and a mail's header line ends at 998: RFC 5322, 2.1.1
ALWAYS_GIVEN = frozenset({"unsubscribe_url", "locale"})


class UnknownTemplate(Exception):
    """No folder of this name in the templates."""


class TemplateDataError(Exception):
    """The template needs data that was not given; the text names all of it."""


class TemplateBroken(Exception):
    """A template cannot be used: a mistake in its files, not in the data."""


class Template(BaseModel):
    """template.toml. `channels` in order of preference; `mandatory` ones cannot be turned off by a preference.

    `optional` data is None where it is not given; all other data that a form names must be given.

    `after_lost_reply`: whether a mail whose fate is unknown after a crash goes out again with the same Message-ID.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    locales: tuple[str, ...]
    category: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    channels: tuple[Route, ...] = Field(min_length=1)
    every: bool = False
    mandatory: bool = False
    after_lost_reply: Literal["resend", "leave"] = "resend"
    default_locale: str = "en"
    optional: frozenset[str] = frozenset()
    example: dict[str, JsonValue] = Field(default_factory=dict)


class _Bounded(ImmutableSandboxedEnvironment):
    """Values in JSON forms are escaped for JSON strings, as those in HTML forms are for HTML."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            loader=FileSystemLoader(folder),
            undefined=StrictUndefined,
            autoescape=lambda name: bool(name and name.endswith(".html")),
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=-1,
            finalize=_printed,
        )
        self.filters["money"] = money
        self.filters["link"] = link
        self.filters["paragraphs"] = paragraphs
        self.filters["lines"] = lines


@pass_context
def _printed(context: Context, value: object) -> object:
    """What stands in the form for `value`."""
    if value is None or isinstance(value, dict | list | tuple | set):
        kind = "None: give the value" if value is None else f"a {type(value).__name__}: give a text or a number"
        msg = f"a value that is printed is {kind}"
        raise TemplateDataError(msg)
    if context.name is None or not context.name.endswith(".json"):
        return value
    text = str(value)
    if context.name.endswith("slack.json"):
        # or data could address everybody: https://docs.slack.dev/messaging/formatting-message-text#escaping
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps(text, ensure_ascii=False)[1:-1]


def money(minor_units: object, currency: object) -> str:
    """`1,299.00 EUR` from 129900 cents. Only currencies with two decimals; the notation is the same in every locale."""
    if not isinstance(minor_units, int) or isinstance(minor_units, bool):
        msg = f"`money` needs a whole number of cents, not {minor_units!r}"
        raise TemplateDataError(msg)
    if not isinstance(currency, str):
        msg = f"`money` needs a currency such as EUR, not {currency!r}"
        raise TemplateDataError(msg)
    sign = "-" if minor_units < 0 else ""
    return f"{sign}{abs(minor_units) // 100:,}.{abs(minor_units) % 100:02} {currency}"


def link(url: object) -> str:
    """A checked http or https URL; nothing else may stand behind a button."""
    try:
        return web_url(str(url))
    except InvalidUrl as error:
        raise TemplateDataError(str(error)) from error


def paragraphs(text: str) -> Markup:
    """Plain text as HTML paragraphs; URLs become links."""
    blocks = [block for block in text.replace("\r\n", "\n").split("\n\n") if block.strip()]
    linked = (urlize(block, rel="noopener").replace("\n", "<br>\n") for block in blocks)
    return Markup("\n".join(f'<p style="margin:0 0 16px">{block}</p>' for block in linked))  # noqa: S704 - urlize escapes


def lines(text: str) -> Markup:
    """Plain text as HTML that keeps its line breaks."""
    return Markup("<br>\n").join(text.splitlines())


class Templates:
    """The templates of one folder. Compiled ones are kept; a change needs a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = _Bounded(folder)
        self._known = frozenset(self.names())
        self._load: Callable[[str], Template] = cache(self._read)
        self._forms: Callable[[str, str], tuple[str, ...]] = cache(self._list_forms)
        self._needs: Callable[[str], frozenset[str]] = cache(self._variables)

    def names(self) -> list[str]:
        """All of them."""
        return sorted(each.parent.name for each in self._folder.glob("*/template.toml"))

    def get(self, name: str) -> Template:
        """One of them.

        Raises:
            UnknownTemplate: with the names that are near.
            TemplateBroken: its template.toml is wrong.
        """
        if name not in self._known:
            near = difflib.get_close_matches(name, self.names()) or self.names()
            msg = f"there is no template {name!r}; there are: {', '.join(near)}"
            raise UnknownTemplate(msg)
        return self._load(name)

    def render(
        self, name: str, locale: str | None, data: Mapping[str, JsonValue], *, unsubscribe_url: str | None = None
    ) -> Content:
        """Every form of the template in the nearest locale: exact, then language, then the template's default.

        Raises:
            UnknownTemplate: there is none of this name.
            TemplateDataError: data is missing, of the wrong kind or too long; the text names it.
            TemplateBroken: a form cannot be compiled.
        """
        template = self.get(name)
        chosen = _nearest(locale, template)
        forms = self._forms(name, chosen)
        self._check_given(template, chosen, forms, data)
        given = {"unsubscribe_url": unsubscribe_url or "", "locale": chosen}
        values = {**dict.fromkeys(template.optional), **data, **given}
        made = {form: self._render(f"{name}/{chosen}/{form}", values, template) for form in forms}
        place = f"{name}/{chosen}"
        push = _push(made.get("push.json"), place)
        return Content(
            subject=_subject(made["subject.txt"]),
            text=made["body.txt"].strip() + "\n",
            html=made.get("body.html"),
            slack_blocks=_slack(made.get("slack.json"), place),
            push_title=push.get("title"),
            push_body=push.get("body"),
            url=push.get("url") or None,
        )

    def check_data(self, name: str, data: Mapping[str, JsonValue]) -> None:
        """Render every locale: whose message it is, and so in which, may be known only when it is sent.

        Raises:
            UnknownTemplate: there is none of this name.
            TemplateDataError: data is missing, of the wrong kind or too long, in any locale.
            TemplateBroken: a form cannot be compiled.
        """
        for locale in self.get(name).locales:
            self.render(name, locale, data)

    def from_text(
        self,
        subject: str,
        text: str,
        *,
        html: str | None = None,
        slack_blocks: list[dict[str, JsonValue]] | None = None,
        push_title: str | None = None,
        push_body: str | None = None,
        url: str | None = None,
        unsubscribe_url: str | None = None,
    ) -> Content:
        """A message without a template; its HTML is the text in the layout, unless it brings its own.

        Raises:
            TemplateDataError: `url` is no web link, or Slack would refuse `slack_blocks`.
        """
        subject = _subject(subject)
        if slack_blocks is not None:
            _check_blocks(slack_blocks, "`slack_blocks`")
        given = {"unsubscribe_url": unsubscribe_url or "", "locale": "en"}
        values = {"subject": subject, "text": text, "url": url, **given}
        return Content(
            subject=subject,
            text=f"{text.rstrip()}\n" + (f"\n{url}\n" if url else ""),
            html=html or self._environment.get_template(f"{LAYOUT}/plain.html").render(values),
            slack_blocks=tuple(slack_blocks) if slack_blocks is not None else None,
            push_title=push_title,
            push_body=push_body,
            url=link(url) if url else None,
        )

    def check(self) -> None:
        """Render every template in every locale with its example.

        Raises:
            TemplateBroken: the first that cannot be used, and why.
        """
        for name in self.names():
            template = self.get(name)
            for locale in template.locales:
                try:
                    self.render(name, locale, template.example, unsubscribe_url="https://example.com/u")
                except TemplateDataError as error:
                    msg = f"{name}/{locale} does not render with its own [example]: {error}"
                    raise TemplateBroken(msg) from error

    def _read(self, name: str) -> Template:
        folder = self._folder / name
        locales = tuple(sorted(each.name for each in folder.iterdir() if each.is_dir()))
        try:
            row = Template(name=name, locales=locales, **tomllib.loads((folder / "template.toml").read_text()))
        except (ValueError, TypeError, OSError) as error:
            msg = f"{name}/template.toml: {error}"
            raise TemplateBroken(msg) from error
        if row.default_locale not in locales:
            msg = f"{name} has no folder for its default locale {row.default_locale!r}"
            raise TemplateBroken(msg)
        return row

    def _list_forms(self, name: str, locale: str) -> tuple[str, ...]:
        folder = self._folder / name / locale
        there = {each.name for each in folder.iterdir()}
        if not there.issuperset(REQUIRED) or not there.issubset(FORMS):
            msg = f"{name}/{locale} must have {' and '.join(REQUIRED)}, and may have {', '.join(FORMS)}; it has {there}"
            raise TemplateBroken(msg)
        return tuple(form for form in FORMS if form in there)

    def _variables(self, path: str) -> frozenset[str]:
        try:
            source = (self._folder / path).read_text()
            return frozenset(meta.find_undeclared_variables(self._environment.parse(source, filename=path)))
        except (TemplateError, OSError, UnicodeDecodeError) as error:
            msg = f"{path}: {error}"
            raise TemplateBroken(msg) from error

    def _check_given(
        self, template: Template, locale: str, forms: tuple[str, ...], data: Mapping[str, JsonValue]
    ) -> None:
        lacking: dict[str, list[str]] = {}
        for form in forms:
            needed = self._needs(f"{template.name}/{locale}/{form}") - ALWAYS_GIVEN - template.optional
            for variable in needed - {name for name, value in data.items() if value is not None}:
                lacking.setdefault(variable, []).append(form)
        if lacking:
            told = "; ".join(f"`{variable}` (in {', '.join(where)})" for variable, where in sorted(lacking.items()))
            given = ", ".join(f"{name} (null)" if data[name] is None else name for name in sorted(data)) or "nothing"
            msg = f"the template {template.name!r} needs data that is missing: {told}. Given: {given}"
            raise TemplateDataError(msg)

    def _render(self, path: str, values: Mapping[str, object], template: Template) -> str:
        try:
            made = self._environment.get_template(path).render(values)
        except UndefinedError as error:
            msg = f"the template {template.name!r} needs data that is missing: {error.message} (in {path})"
            raise TemplateDataError(msg) from error
        except TemplateDataError as error:
            msg = f"{path}: {error}"
            raise TemplateDataError(msg) from error
        except TemplateError as error:
            msg = f"{path}: {error}"
            raise TemplateBroken(msg) from error
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError) as error:
            msg = f"the data does not fit {path}: {error}"
            raise TemplateDataError(msg) from error
        if len(made) > MAX_FORM_CHARACTERS:
            msg = f"{path} became {len(made):,} characters; at most {MAX_FORM_CHARACTERS:,} are sent"
            raise TemplateDataError(msg)
        return made


def _nearest(locale: str | None, template: Template) -> str:
    wanted = locale or template.default_locale
    for candidate in (wanted, wanted.partition("-")[0]):
        if candidate in template.locales:
            return candidate
    return template.default_locale


def _subject(text: str) -> str:
    """One line, cut where it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_SUBJECT_CHARACTERS else f"{line[: MAX_SUBJECT_CHARACTERS - 1]}…"


def _push(form: str | None, place: str) -> dict[str, str]:
    if form is None:
        return {}
    push = _parsed(form, f"{place}/push.json")
    if not isinstance(push, dict) or not all(isinstance(value, str) for value in push.values()):
        msg = f"{place}/push.json must be an object of texts (`title`, `body`, `url`) once rendered"
        raise TemplateDataError(msg)
    if push.get("url"):
        link(push["url"])
    return push


def _slack(form: str | None, place: str) -> tuple[dict[str, JsonValue], ...] | None:
    if form is None:
        return None
    blocks = _parsed(form, f"{place}/slack.json")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        msg = f"{place}/slack.json must be a list of blocks once rendered"
        raise TemplateDataError(msg)
    _check_blocks(blocks, f"{place}/slack.json")
    return tuple(with_plain_urls(blocks))


def _check_blocks(blocks: list[Any], place: str) -> None:
    refused = too_long(blocks)
    if refused:
        msg = f"{place}: {refused}. Shorten the data"
        raise TemplateDataError(msg)


def _parsed(form: str, place: str) -> Any:
    try:
        return json.loads(form)
    except (ValueError, RecursionError) as error:
        msg = f"{place} is no JSON once rendered with this data: {error}"
        raise TemplateDataError(msg) from error
