"""What goes wrong at a vendor, on demand."""

import random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal[
    "other_client",
    "error",
    "timeout",
    "reset",
    "slow",
    "revoke",
    "malformed_row",
    "missing_field",
    "renamed_field",
    "repeated_cursor",
    "empty_page",
    "slow_down",
]


class VendorFault(BaseModel):
    """One thing that goes wrong.

    other_client     another client uses from `amount` to `amount_most` of the request's quotas, or of `quota` alone
    error            `status`, in the vendor's form or as a page of HTML; with Retry-After if `retry_after` is given
    timeout          no answer for `seconds`
    reset            the connection is cut without an answer
    slow             a good answer after `seconds`
    revoke           the customer takes the grant back just before this request
    malformed_row    a row of the page has no identifier, or something else in its `field`
    missing_field    no row of the page has `field` (dotted)
    renamed_field    in every row of the page `field` is called `to`
    repeated_cursor  the page names itself as the next one
    empty_page       the page has no rows and names a next one, which has them
    slow_down        a good answer with Retry-After of `retry_after` seconds

    `vendor`, `account` and `endpoint` restrict it. It lets `skip` requests pass, then happens `times` times (None is
    for ever) to a share `rate` of them.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    vendor: str | None = None
    account: str | None = None
    endpoint: str | None = None
    skip: int = Field(default=0, ge=0)
    times: int | None = Field(default=1, gt=0)
    rate: float | None = Field(default=None, gt=0, le=1)
    quota: str | None = None
    amount: int = Field(default=1, ge=0)
    amount_most: int | None = None
    status: int = Field(default=503, ge=200, le=599)
    html: bool = False
    retry_after: int | None = Field(default=None, ge=0)
    seconds: float = Field(default=3600, ge=0)
    field: str | None = None
    to: str | None = None


class _Programmed:
    def __init__(self, fault: VendorFault) -> None:
        self.fault = fault
        self.skip = fault.skip
        self.times = fault.times


class VendorFaults:
    """The faults that are programmed. Rates use a seeded generator."""

    def __init__(self, seed: int = 1) -> None:
        self._programmed: list[_Programmed] = []
        self.dice = random.Random(seed)  # noqa: S311 - no secret

    def add(self, fault: VendorFault) -> None:
        """Program one."""
        self._programmed.append(_Programmed(fault))

    def clear(self) -> None:
        """From now on all is well."""
        self._programmed.clear()

    def due(self, vendor: str, account: str | None, endpoint: str) -> list[VendorFault]:
        """What happens to this request."""
        found = []
        for each in tuple(self._programmed):
            fault = each.fault
            wanted = (fault.vendor, fault.account, fault.endpoint)
            if any(want not in {None, is_} for want, is_ in zip(wanted, (vendor, account, endpoint), strict=True)):
                continue
            if each.skip:
                each.skip -= 1
                continue
            if fault.rate is not None and self.dice.random() >= fault.rate:
                continue
            if each.times is not None:
                each.times -= 1
                if each.times == 0:
                    self._programmed.remove(each)
            found.append(fault)
        return found
