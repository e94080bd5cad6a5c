"""Everything that reads Rivya's bodies, in one place to import from."""

from app.rivya.catalogue_payload import read_credits, read_models
from app.rivya.delivery_payload import GENERATION_EVENTS, DeliveryBody, Kind, read_delivery
from app.rivya.endpoint_payload import (
    EndpointList,
    WebhookEndpoint,
    find_secret,
    read_endpoint,
    read_endpoint_list,
    read_rotation,
)
from app.rivya.error_payload import ErrorBody, read_error, read_error_body, read_retry_after
from app.rivya.errors import PayloadUnreadable
from app.rivya.generation_payload import STATUSES, Generation, find_generation, read_generation
from app.rivya.storable import storable

__all__ = [
    "GENERATION_EVENTS",
    "STATUSES",
    "DeliveryBody",
    "EndpointList",
    "ErrorBody",
    "Generation",
    "Kind",
    "PayloadUnreadable",
    "WebhookEndpoint",
    "find_generation",
    "find_secret",
    "read_credits",
    "read_delivery",
    "read_endpoint",
    "read_endpoint_list",
    "read_error",
    "read_error_body",
    "read_generation",
    "read_models",
    "read_retry_after",
    "read_rotation",
    "storable",
]
