"""One trace goes from the API's request to inside the activity, and the worker's log lines name it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.stack import closed, picture, running


class Collector:
    """Receives OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                import gzip

                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()


async def test_one_trace_from_the_request_to_inside_the_activity(collector: Collector, tmp_path: Path) -> None:
    async with running(tmp_path, otlp_endpoint=collector.url) as up, await up.client() as client:
        accepted = (await client.post("/v1/files", files={"file": ("a.png", picture("traced"))})).json()
        await closed(client, accepted["job_id"])
        async with asyncio.timeout(30):  # both processes send every five seconds
            while not any(span.name == "RunActivity:file.publish_text" for span in collector.spans):
                await asyncio.sleep(0.2)
            while not (roots := [span for span in collector.spans if span.name == "POST /v1/files"]):
                await asyncio.sleep(0.2)
        log = (tmp_path / "logs" / "worker.log").read_text()
    by_id = {span.span_id: span for span in collector.spans}

    def ancestors(span: Span) -> list[str]:
        names = []
        while span.parent_span_id in by_id:
            span = by_id[span.parent_span_id]
            names.append(span.name)
        return names

    published = next(span for span in collector.spans if span.name == "RunActivity:file.publish_text")
    assert published.trace_id == roots[0].trace_id
    assert ancestors(published)[-1] == "POST /v1/files"
    assert "StartWorkflow:file" in ancestors(published)
    for line in log.splitlines():
        entry = json.loads(line)
        if entry["event"] == "file.verified":
            assert entry["job_id"] == accepted["job_id"]
            assert (entry["tenant"], entry["attempt"]) == ("acme", 1)
            assert entry["trace_id"] == published.trace_id.hex()
            break
    else:
        pytest.fail("no line of the activity in the worker's log")
