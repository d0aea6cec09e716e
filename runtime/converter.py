"""How payloads become bytes: pydantic JSON, strict for orders, with a seam for a codec (encryption, compression)."""

from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload as WirePayload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadCodec,
    create_payload_validation_error,
)

from contracts.payloads.model import Order


class _StrictOrders(PydanticJSONPlainPayloadConverter):
    """An `Order` that does not validate is a failure; anything else holds the workflow task until a rollback."""

    def from_payload(self, payload: WirePayload, type_hint: type[Any] | None = None) -> Any:
        try:
            return super().from_payload(payload, type_hint)
        except ValidationError as error:
            if isinstance(type_hint, type) and issubclass(type_hint, Order):
                problems = error.errors(include_url=False, include_input=False, include_context=False)
                raise create_payload_validation_error(problems) from error
            raise


_STRICT = _StrictOrders()
_ENCODINGS = tuple(
    _STRICT if isinstance(each, JSONPlainPayloadConverter) else each
    for each in DefaultPayloadConverter.default_encoding_payload_converters
)


class StrictOrderConverter(CompositePayloadConverter):
    """Temporal's default encodings with pydantic JSON in the place of plain JSON; the SDK makes one per activation."""

    def __init__(self) -> None:
        super().__init__(*_ENCODINGS)


def data_converter(codec: PayloadCodec | None = None) -> DataConverter:
    """The one converter of client, worker and replayer.

    With a codec, failure messages and stack traces are encoded too; search attributes never are.
    """
    if codec is None:
        return DataConverter(payload_converter_class=StrictOrderConverter)
    return DataConverter(
        payload_converter_class=StrictOrderConverter,
        payload_codec=codec,
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
