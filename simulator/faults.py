"""Faults on demand: which message of which channel goes wrong, how, and how often."""

import random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from simulator.rows import ROWS, Answer

Kind = Literal["answer", "reset", "timeout", "slow", "close_after_data", "close_before_data"]
Stage = Literal["connect", "mail", "rcpt", "data", "end_of_data"]


class Fault(BaseModel):
    """One thing that goes wrong.

    answer             the vendor's answer `row` of simulator/rows.py, or the one given here
    reset              the connection is reset as soon as the request is known, nothing is taken
    close_before_data  SMTP: closed at DATA, before the mail; elsewhere as reset
    timeout            never answered; nothing is taken
    slow               answered well, after `delay_s`
    close_after_data   taken, recorded and shown; the connection is closed without an answer

    `stage` moves an SMTP fault to another point of the conversation.

    `target` restricts it to one address, `times` to so many messages (None is for ever), `rate` to a share of them.
    """

    model_config = ConfigDict(extra="forbid")

    channel: str
    kind: Kind = "answer"
    row: str | None = None
    status: int = 500
    headers: dict[str, str] = Field(default_factory=dict)
    body: JsonValue = None
    stage: Stage | None = None
    target: str | None = None
    times: int | None = Field(default=1, gt=0)
    rate: float | None = Field(default=None, gt=0, le=1)
    delay_s: float = Field(default=0, ge=0)

    def answer(self) -> Answer:
        """What is answered."""
        if self.row is not None:
            return ROWS[self.channel][self.row]
        return Answer(self.status, self.body, self.headers, stage=self.stage or "end_of_data")

    def stage_of(self) -> Stage:
        """At which point of an SMTP conversation it happens."""
        if self.stage is not None:
            return self.stage
        if self.kind == "answer":
            return self.answer().stage
        return "connect" if self.kind == "reset" else "data" if self.kind == "close_before_data" else "end_of_data"


class Faults:
    """The faults that are programmed, first come first served. Rates use a seeded generator."""

    def __init__(self, seed: int = 1) -> None:
        self._faults: list[Fault] = []
        self._left: dict[int, int] = {}
        self._dice = random.Random(seed)  # noqa: S311 - no secret

    def add(self, fault: Fault) -> None:
        """Program one.

        Raises:
            KeyError: no such row.
        """
        fault.answer()
        self._faults.append(fault)
        if fault.times is not None:
            self._left[id(fault)] = fault.times

    def clear(self) -> None:
        """From now on all is well."""
        self._faults.clear()
        self._left.clear()

    def take(self, channel: str, target: str | None = None, *, stage: Stage | None = None) -> Fault | None:
        """The fault that happens now, if one does."""
        for fault in self._faults:
            if fault.channel != channel or (fault.target is not None and fault.target != target):
                continue
            if stage is not None and fault.stage_of() != stage:
                continue
            if fault.rate is not None and self._dice.random() >= fault.rate:
                continue
            if id(fault) in self._left:
                self._left[id(fault)] -= 1
                if self._left[id(fault)] == 0:
                    self._faults.remove(fault)
                    del self._left[id(fault)]
            return fault
        return None
