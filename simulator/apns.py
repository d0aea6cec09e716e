"""APNs over HTTP/2 without TLS: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import cast

import jwt
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from simulator.credentials import APNS_KEY_ID, APNS_TEAM_ID, APNS_TOPIC
from simulator.faults import Faults
from simulator.records import Records
from simulator.rows import Answer

MAX_PAYLOAD_BYTES = 4096
TOKEN_SECONDS = 3600
CHANGE_SECONDS = 1200
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PUSH_TYPES = {"alert", "background", "voip", "location", "complication", "fileprovider", "mdm", "liveactivity"}


@dataclass
class _Stream:
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


@dataclass
class ProviderTokens:
    """What Apple remembers of a team's tokens: another one within 20 minutes of the last one's issue is too many."""

    public_key: bytes
    last: str = ""
    issued_at: int = 0

    def judge(self, authorization: str) -> Answer | None:
        """A refusal, or None."""
        token = authorization.removeprefix("bearer ")
        if not token:
            return Answer(403, {"reason": "MissingProviderToken"})
        try:
            claims = jwt.decode(token, self.public_key, algorithms=["ES256"], issuer=APNS_TEAM_ID)
        except jwt.PyJWTError:
            return Answer(403, {"reason": "InvalidProviderToken"})
        if jwt.get_unverified_header(token).get("kid") != APNS_KEY_ID:
            return Answer(403, {"reason": "InvalidProviderToken"})
        now = time.time()
        if not now - TOKEN_SECONDS <= claims["iat"] <= now + 60:
            return Answer(403, {"reason": "ExpiredProviderToken"})
        if token != self.last:
            if self.last and abs(claims["iat"] - self.issued_at) < CHANGE_SECONDS:
                return Answer(429, {"reason": "TooManyProviderTokenUpdates"})
            self.last, self.issued_at = token, claims["iat"]
        return None


class Apns(asyncio.Protocol):
    """One connection."""

    def __init__(self, faults: Faults, records: Records, tokens: ProviderTokens) -> None:
        self._faults = faults
        self._records = records
        self._tokens = tokens
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._streams: dict[int, _Stream] = {}
        self._transport: asyncio.Transport
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not derived from it
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Frames."""
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self._transport.close()
            return
        for event in events:
            if isinstance(event, RequestReceived):
                self._streams[event.stream_id] = _Stream({str(name): str(value) for name, value in event.headers})
            elif isinstance(event, DataReceived):
                self._streams[event.stream_id].body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                task = asyncio.create_task(self._answer(event.stream_id, self._streams.pop(event.stream_id)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif isinstance(event, StreamReset):
                self._streams.pop(event.stream_id, None)
            elif not isinstance(event, (RemoteSettingsChanged, WindowUpdated)):
                continue
        self._flush()

    async def _answer(self, stream_id: int, stream: _Stream) -> None:
        target = stream.headers.get(":path", "").removeprefix("/3/device/")
        fault = self._faults.take("apns", target)
        if fault is not None:
            if fault.kind == "timeout":
                return
            await asyncio.sleep(fault.delay_s)
            if fault.kind in {"reset", "close_before_data"}:
                self._transport.abort()
                return
        answer = fault.answer() if fault is not None and fault.kind == "answer" else self._judge(stream, target)
        accepted = answer.status == 200
        effect = stream.headers.get("apns-id", "")
        body = json.loads(stream.body) if accepted else None
        name = (fault.row or fault.kind) if fault else None
        self._records.add("apns", target, accepted=accepted, effect=effect, body=body, fault=name)
        if body is not None:
            title = str(body["aps"]["alert"]["title"])
            self._records.show("apns", target, stream.headers.get("apns-collapse-id") or effect, title)
        if fault is not None and fault.kind == "close_after_data":
            self._transport.abort()
            return
        headers = [(":status", str(answer.status)), ("apns-id", effect)]
        headers += [(key.lower(), value) for key, value in answer.headers.items()]
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        try:
            self._h2.send_headers(stream_id, headers, end_stream=not content)
            if content:
                self._h2.send_data(stream_id, content, end_stream=True)
            if answer.body == {"reason": "Shutdown"}:
                self._h2.close_connection()
        except ProtocolError:
            return  # the client reset the stream or went away
        self._flush()

    def _judge(self, stream: _Stream, target: str) -> Answer:
        refused = self._tokens.judge(stream.headers.get("authorization", ""))
        if refused is not None:
            return refused
        checks = (
            (stream.headers.get(":method") != "POST", 405, "MethodNotAllowed"),
            (not stream.headers.get(":path", "").startswith("/3/device/"), 404, "BadPath"),
            (not target, 400, "MissingDeviceToken"),
            (len(target) < 64 or any(each not in "0123456789abcdef" for each in target), 400, "BadDeviceToken"),
            (not stream.headers.get("apns-topic"), 400, "MissingTopic"),
            (stream.headers.get("apns-topic") != APNS_TOPIC, 400, "DeviceTokenNotForTopic"),
            (not UUID.fullmatch(stream.headers.get("apns-id", "")), 400, "BadMessageId"),
            (not stream.headers.get("apns-expiration", "0").isdigit(), 400, "BadExpirationDate"),
            (stream.headers.get("apns-priority", "10") not in {"1", "5", "10"}, 400, "BadPriority"),
            (stream.headers.get("apns-push-type") not in PUSH_TYPES, 400, "InvalidPushType"),
            (len(stream.headers.get("apns-collapse-id", "")) > 64, 400, "BadCollapseId"),
            (not stream.body, 400, "PayloadEmpty"),
            (len(stream.body) > MAX_PAYLOAD_BYTES, 413, "PayloadTooLarge"),
        )
        for wrong, status, reason in checks:
            if wrong:
                return Answer(status, {"reason": reason})
        return Answer(200)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)
