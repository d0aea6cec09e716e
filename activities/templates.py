"""Message templates: Jinja2 in a sandbox, a folder per template, a folder per locale in it.

    templates/<name>/template.toml              category, channels, policy, example data
    templates/<name>/<locale>/subject.txt       required, one line
                              body.txt          required
                              body.html         autoescaped; extends _layout
                              slack.json        Slack blocks
                              push.json         {"title", "body", "url"}

In JSON forms every value is escaped for a JSON string. Data that is missing is told to the sender, all at once.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, UndefinedError, meta, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import urlize
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from activities.adapters.channels.channel import Content
from contracts.payloads.notification import Route

LAYOUT = "_layout"
FORMS = ("subject.txt", "body.txt", "body.html", "slack.json", "push.json")
REQUIRED = ("subject.txt", "body.txt")
MAX_FORM_CHARACTERS = 256 * 1024
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
            finalize=_escaped_in_json,
        )
        self.filters["money"] = money
        self.filters["link"] = link
        self.filters["paragraphs"] = paragraphs


@pass_context
def _escaped_in_json(context: Context, value: object) -> object:
    if context.name is None or not context.name.endswith(".json"):
        return value
    text = str(value)
    if context.name.endswith("slack.json") and not isinstance(value, Link):
        # or data could address everybody: https://docs.slack.dev/messaging/formatting-message-text#escaping
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps(text, ensure_ascii=False)[1:-1]


def money(minor_units: object, currency: object) -> str:
    """`1,299.00 EUR` from 129900 cents. Only currencies with two decimals; the notation is the same in every locale."""
    if not isinstance(minor_units, int) or isinstance(minor_units, bool):
        msg = f"`money` needs a whole number of cents, not {minor_units!r}"
        raise TemplateDataError(msg)
    sign = "-" if minor_units < 0 else ""
    return f"{sign}{abs(minor_units) // 100:,}.{abs(minor_units) % 100:02} {currency}"


class Link(str):
    """A checked URL."""

    __slots__ = ()


def link(url: object) -> Link:
    """An http or https URL; nothing else may stand behind a button."""
    parts = urlsplit(str(url))
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        msg = f"a link must be an http or https URL, not {url!r}"
        raise TemplateDataError(msg)
    return Link(url)


def paragraphs(text: str) -> Markup:
    """Plain text as HTML paragraphs; URLs become links."""
    blocks = [block for block in text.replace("\r\n", "\n").split("\n\n") if block.strip()]
    linked = (urlize(block, rel="noopener").replace("\n", "<br>\n") for block in blocks)
    return Markup("\n".join(f'<p style="margin:0 0 16px">{block}</p>' for block in linked))  # noqa: S704 - urlize escapes


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
            TemplateDataError: data is missing or of the wrong kind; the text names it.
            TemplateBroken: a form cannot be compiled, or is no JSON once rendered.
        """
        template = self.get(name)
        chosen = _nearest(locale, template)
        forms = self._forms(name, chosen)
        self._check_given(template, chosen, forms, data)
        values = {**dict.fromkeys(template.optional), **data, "unsubscribe_url": unsubscribe_url, "locale": chosen}
        made = {form: self._render(f"{name}/{chosen}/{form}", values, template) for form in forms}
        push = _parsed(made, "push.json", name) or {}
        blocks = _parsed(made, "slack.json", name)
        if blocks is not None and not isinstance(blocks, list):
            msg = f"{name}/{chosen}/slack.json must be a list of blocks"
            raise TemplateBroken(msg)
        return Content(
            subject=" ".join(made["subject.txt"].split()),
            text=made["body.txt"].strip() + "\n",
            html=made.get("body.html"),
            slack_blocks=tuple(blocks) if blocks is not None else None,
            push_title=push.get("title"),
            push_body=push.get("body"),
            url=push.get("url"),
        )

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
        """A message without a template; its HTML is the text in the layout, unless it brings its own."""
        subject = " ".join(subject.split())
        values = {"subject": subject, "text": text, "url": url, "unsubscribe_url": unsubscribe_url, "locale": "en"}
        return Content(
            subject=subject,
            text=f"{text.rstrip()}\n" + (f"\n{url}\n" if url else ""),
            html=html or self._environment.get_template(f"{LAYOUT}/plain.html").render(values),
            slack_blocks=tuple(slack_blocks) if slack_blocks is not None else None,
            push_title=push_title,
            push_body=push_body,
            url=url,
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
        except (ValidationError, tomllib.TOMLDecodeError, TypeError) as error:
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
        source = (self._folder / path).read_text()
        try:
            return frozenset(meta.find_undeclared_variables(self._environment.parse(source, filename=path)))
        except TemplateError as error:
            msg = f"{path}: {error}"
            raise TemplateBroken(msg) from error

    def _check_given(
        self, template: Template, locale: str, forms: tuple[str, ...], data: Mapping[str, JsonValue]
    ) -> None:
        lacking: dict[str, list[str]] = {}
        for form in forms:
            for variable in (
                self._needs(f"{template.name}/{locale}/{form}") - data.keys() - ALWAYS_GIVEN - template.optional
            ):
                lacking.setdefault(variable, []).append(form)
        if lacking:
            told = "; ".join(f"`{variable}` (in {', '.join(where)})" for variable, where in sorted(lacking.items()))
            given = ", ".join(sorted(data)) or "nothing"
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
        except (TypeError, ValueError, ArithmeticError, OverflowError) as error:
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


def _parsed(made: Mapping[str, str], form: str, name: str) -> Any:
    if form not in made:
        return None
    try:
        return json.loads(made[form])
    except ValueError as error:
        msg = f"{name}: {form} is no JSON once rendered: {error}"
        raise TemplateBroken(msg) from error
