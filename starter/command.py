"""How every command of the command line runs: logs, known errors in one line, exit code."""

import os
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop
from rich.console import Console

from activities.templates import TemplateBroken, TemplateDataError, UnknownTemplate
from runtime import telemetry
from runtime.ports import PortInUse
from runtime.profile import ProfileError
from runtime.server import ServerError
from runtime.settings import Settings
from runtime.temporal import TemporalUnreachable
from starter.submit_notification import InvalidNotification
from starter.supervisor import NotReady
from store.database import DatabaseUnavailable, NeedsMigration
from store.submissions import IdempotencyConflict

out = Console()

EXPECTED = (
    ServerError,
    ProfileError,
    PortInUse,
    TemporalUnreachable,
    DatabaseUnavailable,
    NeedsMigration,
    NotReady,
    UnknownTemplate,
    TemplateDataError,
    TemplateBroken,
    InvalidNotification,
    IdempotencyConflict,
)


def run_command(work: Coroutine[Any, Any, int | None], settings: Settings) -> None:
    """Run to the end and leave the process."""
    telemetry.configure_logging(settings)
    try:
        code = uvloop.run(work) or 0
    except EXPECTED as error:
        Console(stderr=True).print(f"[red]holdfast:[/red] {error}", highlight=False)
        code = 1
    except KeyboardInterrupt:
        code = 130
    telemetry.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the interpreter can abort at exit: https://github.com/temporalio/sdk-python/issues/300
