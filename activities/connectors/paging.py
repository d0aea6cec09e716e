"""How lists go on, one class for each way."""

import re
from dataclasses import dataclass, field
from urllib.parse import urljoin

from activities.connectors.spec import Answer, Request

PARAMETER = r';\s*([\w*-]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;,"<]*)))?\s*'
LINK = re.compile(rf"<([^<>]*)>\s*((?:{PARAMETER})*)")


@dataclass(frozen=True, slots=True)
class OnePage:
    """All there is comes at once."""

    def first(self, request: Request) -> Request:
        """As it is."""
        return request

    def after(self, request: Request, cursor: str) -> Request:
        """There is nothing behind it."""
        raise AssertionError(request, cursor)

    def next(self, request: Request, answer: Answer, rows: int) -> str | None:  # noqa: ARG002 - the protocol's
        """The end."""
        return None


@dataclass(frozen=True, slots=True)
class _WholeUrl:
    """The next page has a URL of the vendor's making. Its parameters are in it."""

    size_param: str = ""
    size: int = 100

    def first(self, request: Request) -> Request:
        """With a page size, if that has a name."""
        return request.having(**{self.size_param: str(self.size)}) if self.size_param else request

    def after(self, request: Request, cursor: str) -> Request:
        """The URL itself."""
        return Request(cursor, request.method, headers=request.headers)


@dataclass(frozen=True, slots=True)
class LinkHeader(_WholeUrl):
    """The Link header's `rel="next"`: https://www.rfc-editor.org/rfc/rfc8288."""

    def next(self, request: Request, answer: Answer, rows: int) -> str | None:  # noqa: ARG002 - the protocol's
        """None on the last page."""
        for link in LINK.finditer(answer.headers.get("link", "")):
            said = {name.lower(): quoted or bare for name, quoted, bare in re.findall(PARAMETER, link[2])}
            if link[1] and "next" in said.get("rel", "").lower().split():
                return urljoin(request.target, str(link[1]))
        return None


@dataclass(frozen=True, slots=True)
class UrlInBody(_WholeUrl):
    """A URL in the body, at a dotted path; null or missing on the last page."""

    at: str = field(kw_only=True)

    def next(self, request: Request, answer: Answer, rows: int) -> str | None:  # noqa: ARG002 - the protocol's
        """None on the last page; a path is one of the same host."""
        found = answer.said(self.at)
        return urljoin(request.target, found) if found else None


@dataclass(frozen=True, slots=True)
class TokenInBody:
    """A text or number in the body, to be sent as a parameter; empty or missing on the last page."""

    param: str
    at: str
    size_param: str = ""
    size: int = 100

    def first(self, request: Request) -> Request:
        """With a page size, if that has a name."""
        return request.having(**{self.size_param: str(self.size)}) if self.size_param else request

    def after(self, request: Request, cursor: str) -> Request:
        """The first one with the cursor."""
        return self.first(request).having(**{self.param: cursor})

    def next(self, request: Request, answer: Answer, rows: int) -> str | None:  # noqa: ARG002 - the protocol's
        """None on the last page, which may have no rows, as may any other."""
        found = answer.find(self.at)
        return str(found) if found and isinstance(found, str | int) and found is not True else None


@dataclass(frozen=True, slots=True)
class Offset:
    """How many rows to skip. The last page says so at `last`, or by `total`, or is empty; a short one says nothing."""

    param: str
    size_param: str
    size: int = 100
    last: str = ""
    total: str = ""

    def first(self, request: Request) -> Request:
        """From the beginning."""
        return self.after(request, "0")

    def after(self, request: Request, cursor: str) -> Request:
        """From there."""
        return request.having(**{self.param: cursor, self.size_param: str(self.size)})

    def next(self, request: Request, answer: Answer, rows: int) -> str | None:
        """As many further as there were rows."""
        if not rows or (self.last and answer.find(self.last) is True):
            return None
        behind = int(request.params[self.param]) + rows
        total = answer.find(self.total) if self.total else None
        return None if isinstance(total, int) and behind >= total else str(behind)
