"""One job of the demo, as its summary has it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ran:
    """One job as the summary has it. `seconds` is from the request's first byte to the job's end."""

    type: str
    id: str
    state: str
    seconds: float
    artefacts: list[str]
    came_out: str
    web_ui: str
