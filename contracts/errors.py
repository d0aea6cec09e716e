"""How an activity says that it failed, and who must act.

    FailureKind
    ├── TRANSIENT      nobody: the step's policy retries it
    ├── INVALID_INPUT  who submitted the job: it fails at once and is no dead letter
    ├── AUTH           the customer: a credential was refused
    ├── REJECTED       us: the other side will never accept this
    └── UNREADABLE     us: an answer we do not understand

A throttle is not a failure: the step returns `WaitUntil`. An exception that is none of these is a bug or an outage and
is retried like TRANSIENT.
"""

from enum import StrEnum

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

MAX_MESSAGE_CHARACTERS = 2_000  # failures are kept in history; a vendor's HTML page is not


class FailureKind(StrEnum):
    """Who must act; see the module's table."""

    TRANSIENT = "transient"
    INVALID_INPUT = "invalid_input"
    AUTH = "auth"
    REJECTED = "rejected"
    UNREADABLE = "unreadable"


def failure(kind: FailureKind, code: str, message: str) -> ApplicationError:
    """The one exception that activities raise on purpose.

    Args:
        kind: who must act; anything but TRANSIENT ends the step at the first attempt.
        code: a short slug that groups equal failures, such as `encrypted_pdf`.
        message: one sentence that says what is wrong and what to do.
    """
    return ApplicationError(
        message[:MAX_MESSAGE_CHARACTERS],
        kind.value,
        type=code,
        non_retryable=kind is not FailureKind.TRANSIENT,
        category=ApplicationErrorCategory.BENIGN
        if kind is FailureKind.INVALID_INPUT
        else ApplicationErrorCategory.UNSPECIFIED,
    )


def kind_of(error: BaseException | None) -> FailureKind:
    """The kind `failure` was made with; TRANSIENT for any other exception."""
    if isinstance(error, ApplicationError) and error.details and error.details[0] in list(FailureKind):
        return FailureKind(error.details[0])
    return FailureKind.TRANSIENT


def code_of(error: BaseException | None) -> str:
    """The slug that groups equal failures; the exception's type where it has none."""
    if isinstance(error, ApplicationError) and error.type:
        return error.type
    return type(error).__name__
