"""One real server with a clock that skips, for all workflow tests."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from contracts import search_attributes
from runtime.converter import data_converter
from runtime.server import find_binary


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def env() -> AsyncIterator[WorkflowEnvironment]:
    """A full server; workflows started by `env.client` skip timers while no activity runs."""
    async with await WorkflowEnvironment.start_time_skipping_v2(
        data_converter=data_converter(),
        dev_server_existing_path=find_binary(),
        dev_server_startup_timeout=timedelta(seconds=60),
        dev_server_log_level="error",
        search_attributes=list(search_attributes.ALL),
        dev_server_extra_args=["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"],
    ) as environment:
        yield environment
    await asyncio.sleep(0.5)  # https://github.com/temporalio/sdk-python/issues/300


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(env: WorkflowEnvironment) -> Client:
    return env.client
