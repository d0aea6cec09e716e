"""Orders are strict, facts wait for a rollback, and a codec sees everything."""

import uuid
from collections.abc import Sequence
from typing import cast

import pytest
from pydantic import ValidationError
from temporalio.api.common.v1 import Payload as WirePayload
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ApplicationError

from activities.file import FileActivities
from contracts.errors import FailureKind, code_of, failure, kind_of
from contracts.payloads.file import FileRequest, PageRead, ReadPage
from contracts.payloads.job import Interrupted, JobRef, WaitUntil
from runtime.converter import data_converter

JOB = JobRef(job_id=uuid.UUID(int=7), tenant="acme")


def wire(value: object) -> WirePayload:
    return data_converter().payload_converter.to_payload(value)


def test_an_order_that_does_not_validate_names_its_fields() -> None:
    with pytest.raises(ApplicationError) as raised:
        data_converter().payload_converter.from_payload(wire({"content_id": 3}), FileRequest)
    assert raised.value.non_retryable
    assert "job" in str(raised.value.details)


def test_a_fact_that_no_longer_decodes_is_not_turned_into_a_failure_of_the_job() -> None:
    with pytest.raises(ValidationError):
        data_converter().payload_converter.from_payload(wire({"page": "x"}), PageRead)


def test_a_newer_senders_unknown_field_is_ignored() -> None:
    order = {
        "job": JOB.model_dump(mode="json"),
        "content_id": "c",
        "media_type": "image/png",
        "page": 1,
        "colour": "red",
    }
    assert data_converter().payload_converter.from_payload(wire(order), ReadPage) == ReadPage(
        job=JOB, content_id="c", media_type="image/png", page=1
    )


@pytest.mark.parametrize(
    "answer",
    [
        PageRead(page=1, words=2, confidence=0.5, source="ocr"),
        Interrupted(place={"page": 3}),
        WaitUntil.model_validate({"until": "2026-11-24T10:00:00Z", "waiting_for": "jira"}),
    ],
)
def test_a_steps_answer_keeps_its_kind(answer: PageRead | Interrupted | WaitUntil) -> None:
    kinds = PageRead | WaitUntil | Interrupted
    assert data_converter().payload_converter.from_payload(wire(answer), cast("type[object]", kinds)) == answer


async def test_a_codec_encodes_payloads_and_failure_messages() -> None:
    class Reversed(PayloadCodec):
        async def encode(self, payloads: Sequence[WirePayload]) -> list[WirePayload]:
            return [
                WirePayload(metadata={"encoding": b"reversed"}, data=each.SerializeToString()[::-1])
                for each in payloads
            ]

        async def decode(self, payloads: Sequence[WirePayload]) -> list[WirePayload]:
            return [WirePayload.FromString(each.data[::-1]) for each in payloads]

    converter = data_converter(Reversed())
    encoded = await converter.encode([JOB])
    assert b"acme" not in encoded[0].data
    assert await converter.decode(encoded, [JobRef]) == [JOB]
    assert converter.failure_converter_class().__class__.__name__ == "DefaultFailureConverterWithEncodedAttributes"


def test_a_failure_says_who_must_act_and_is_final_unless_transient() -> None:
    rejected = failure(FailureKind.REJECTED, "too_big", "the message is 5 MB; the limit is 4 MB")
    assert (kind_of(rejected), code_of(rejected), rejected.non_retryable) == (FailureKind.REJECTED, "too_big", True)
    assert not failure(FailureKind.TRANSIENT, "down", "try again").non_retryable
    assert (kind_of(RuntimeError("x")), code_of(RuntimeError("x"))) == (FailureKind.TRANSIENT, "RuntimeError")
    assert len(failure(FailureKind.REJECTED, "x", "y" * 9_999).message) == 2_000


def test_steps_are_registered_under_their_catalogue_names() -> None:
    for name in ("verify", "make_thumbnails", "read_page", "publish_text"):
        definition = getattr(FileActivities, name).__temporal_activity_definition
        assert definition.name == f"file.{name}"
