"""The API without its Temporal service: nothing is lost, and the same request starts the job later."""

import asyncio
import contextlib
from pathlib import Path

import httpx
import uvicorn

from contracts.payloads.job import JobState
from runtime.server import EmbeddedServer, ServerOptions
from starter.api.app import create_app
from starter.bootstrap import bootstrap
from starter.services import open_services
from store.api_keys import Role
from store.migrate import migrate
from tests.integration.stack import picture, settings_in


async def test_an_upload_while_temporal_is_away_is_503_and_started_when_asked_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with open_services(settings, role="test") as services:
        await migrate(services.database)
        _, secret = await services.api_keys.create("acme", Role.SUBMIT, "")
        config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=settings.api_port, log_config=None)
        api = uvicorn.Server(config)
        serving = asyncio.create_task(api._serve())
        headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "once"}
        body = {"file": ("a.png", picture("patience"))}
        try:
            async with httpx.AsyncClient(
                base_url=settings.resolved_public_url(), headers=headers, timeout=30
            ) as client:
                async with asyncio.timeout(20):
                    while not api.started:
                        await asyncio.sleep(0.05)
                refused = await client.post("/v1/files", files=body)
                assert refused.status_code == 503
                assert refused.headers["retry-after"] == "5"
                assert refused.json()["code"] == "temporal_unavailable"
                assert (await client.get("/readyz")).status_code == 503
                (job,), _ = await services.jobs.list("acme")
                assert job.state is JobState.SUBMITTED
                status = (await client.get(f"/v1/jobs/{job.job_id}")).json()
                assert (status["state"], status["live"]) == ("submitted", False)
                options = ServerOptions(tmp_path, settings.temporal_port, settings.temporal_ui_port)
                async with EmbeddedServer(options):
                    await bootstrap(services.temporal, services.database, services.settings)
                    accepted = await client.post("/v1/files", files=body)
                    assert accepted.status_code == 202
                    assert accepted.json()["job_id"] == str(job.job_id)
                    count = await services.temporal.count_workflows("WorkflowType = 'file'")
                    assert count.count == 1
        finally:
            api.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
