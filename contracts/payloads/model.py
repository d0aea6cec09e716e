"""The two kinds of payload: what is asked (strict) and what came out (kept readable for ever)."""

from pydantic import BaseModel, ConfigDict, JsonValue


class Payload(BaseModel):
    """Immutable; unknown fields are ignored so that an older worker reads a newer sender."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Order(Payload):
    """Input of a workflow, an update or an activity.

    One that does not validate fails its workflow, update or attempt at once, with the field named
    (runtime/converter.py). A `Fact` that no longer decodes instead holds the workflow until a rollback.
    """


class StepOrder(Order):
    """Input of one step. `resume` is the place at which an earlier execution was interrupted."""

    resume: JsonValue = None


class Fact(Payload):
    """Output of a workflow or an activity, recorded in history."""
