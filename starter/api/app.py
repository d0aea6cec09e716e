"""The application object and its middleware."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from runtime import collector
from runtime.settings import Settings
from starter.api import (
    audiences,
    broadcasts,
    budgets,
    connections,
    events,
    files,
    health,
    jobs,
    notifications,
    people,
    problems,
    unsubscribe,
)
from starter.api.access import KnownKeys
from starter.api.body_limit import BodyLimit
from starter.api.log_context import LogContext
from starter.services import open_services


def create_app(settings: Settings) -> FastAPI:
    """The API. Its services are opened when it starts and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, role="api") as services:
            app.state.services = services
            app.state.known_keys = KnownKeys(services.api_keys)
            collector.started()
            yield

    app = FastAPI(
        title="Holdfast",
        version=version("holdfast"),
        summary="Background jobs: started here, seen in the Temporal Web UI.",
        lifespan=lifespan,
        openapi_tags=[
            {"name": "notifications"},
            {"name": "broadcasts"},
            {"name": "audiences"},
            {"name": "events"},
            {"name": "people"},
            {"name": "connections"},
            {"name": "budgets"},
            {"name": "files"},
            {"name": "jobs"},
            {"name": "health"},
        ],
    )
    problems.install(app)
    parts = (
        notifications,
        broadcasts,
        audiences,
        events,
        people,
        unsubscribe,
        connections,
        budgets,
        files,
        jobs,
        health,
    )
    for part in parts:
        app.include_router(part.router)
    app.add_middleware(BodyLimit)
    app.add_middleware(LogContext)
    FastAPIInstrumentor.instrument_app(app, excluded_urls="healthz,readyz", exclude_spans=["receive", "send"])
    return app
