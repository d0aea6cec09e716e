"""/healthz: this process answers. /readyz: so do the store and Temporal."""

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from starter.services import Services
from store.database import DatabaseUnavailable, NeedsMigration

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Liveness")
async def healthz() -> dict[str, str]:
    """Answers as long as the process does."""
    return {"status": "ok"}


@router.get("/readyz", summary="Readiness")
async def readyz(request: Request) -> JSONResponse:
    """503 with the part that does not answer."""
    services: Services = request.app.state.services
    checks = {"store": "ok", "temporal": "ok"}
    try:
        await services.database.ping()
    except (DatabaseUnavailable, NeedsMigration, SQLAlchemyError, OSError) as error:
        checks["store"] = str(error)
    try:
        await services.temporal.service_client.check_health(timeout=timedelta(seconds=2))
    except (RuntimeError, RPCError) as error:
        checks["temporal"] = str(error)
    ready = all(answer == "ok" for answer in checks.values())
    return JSONResponse({"status": "ok" if ready else "unavailable", "checks": checks}, 200 if ready else 503)
