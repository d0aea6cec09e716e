"""Logs by structlog and traces by OpenTelemetry, the same in every process."""

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from temporalio import activity, workflow
from temporalio.contrib.opentelemetry import create_tracer_provider

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from opentelemetry.sdk.trace.export import SpanExporter

    from runtime.settings import Settings


def configure_logging(settings: "Settings") -> None:
    """Structlog for us, and the same lines for libraries that use the standard library's logging."""
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _add_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer = (
        [structlog.dev.ConsoleRenderer()]
        if pretty
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("httpx", "httpcore", "uvicorn.access", "aiosqlite", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    activity.logger.activity_info_on_message = False  # the context is in keys, see worker.py
    workflow.logger.workflow_info_on_message = False
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:3],
            _add_trace,
            shared[-1],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _add_trace(_logger: object, _method: str, event: "MutableMapping[str, Any]") -> "MutableMapping[str, Any]":
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
    return event


def configure_tracing(service: str, settings: "Settings", exporter: "SpanExporter | None" = None) -> None:
    """Install the replay-safe provider. Spans leave by OTLP where `otlp_endpoint` is set, or to `exporter`."""
    provider = create_tracer_provider(resource=Resource.create({"service.name": service}))
    if exporter is None and settings.otlp_endpoint:
        exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint.get_secret_value())
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def flush() -> None:
    """Send what is buffered; entry points leave by os._exit and would lose it."""
    provider = trace.get_tracer_provider()
    force_flush = getattr(provider, "force_flush", None)
    if force_flush:
        force_flush(5_000)  # milliseconds
    logging.shutdown()
