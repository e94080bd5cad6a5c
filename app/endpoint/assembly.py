"""Puts the parts of our registration together."""

from dataclasses import dataclass

from fastapi import APIRouter

from app.core.auth import Access
from app.core.clock import Clock, alternate_clocks
from app.core.database import Database
from app.core.encryption import SecretBox
from app.core.leases import Leases
from app.core.settings import Settings
from app.endpoint import routes
from app.endpoint.health import EndpointHealth
from app.endpoint.keyring import Keyring
from app.endpoint.probe import ProbeKey
from app.endpoint.proofs import Proofs
from app.endpoint.reachability import Reachability
from app.endpoint.reconciler import Registrar
from app.endpoint.repository import Registry
from app.endpoint.service import Operator, Showing
from app.endpoint.verification import Verification
from app.rivya.client import RivyaClient
from app.rivya.schemes import wanted_scheme


@dataclass(frozen=True, slots=True)
class EndpointParts:
    """What a process has of our registration."""

    keyring: Keyring
    verifications: tuple[Verification, ...]
    """By our clock, and by others that may be right where ours is wrong."""
    health: EndpointHealth
    registrar: Registrar
    probe_key: ProbeKey
    routers: tuple[APIRouter, ...]


def assemble(
    client: RivyaClient, database: Database, settings: Settings, *, clock: Clock, leases: Leases, access: Access
) -> EndpointParts:
    """Everything about the endpoint. Raises `SchemeInvalid`."""
    scheme, fixed = wanted_scheme(settings.rivya_signature_scheme), settings.rivya_signing_secret
    keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
    fixed_secret = None if fixed is None else fixed.get_secret_value()
    keyring = Keyring(database, clock=clock, keys=keys, scheme=scheme, fixed_secret=fixed_secret)
    probe_key = ProbeKey(settings.rivya_api_key.get_secret_value())
    registrar = Registrar(
        client,
        database,
        clock=clock,
        leases=leases,
        keys=keys,
        public_url=settings.receiver_public_url if settings.registers_endpoint else None,
        term=settings.receiver_leader_lease,
        check_every=settings.receiver_endpoint_check,
        secret_overlap=settings.receiver_secret_overlap,
        rotate_every=settings.rotate_every,
    )
    showing = Showing(database, keyring, clock=clock)
    reachability = Reachability(
        client, Registry(database), clock=clock, key=probe_key, public_url=settings.receiver_public_url
    )
    operating = routes.operator_router(access, Operator(database, clock=clock), reachability, showing, keyring)
    return EndpointParts(
        keyring,
        tuple(Verification(keyring, Proofs(database), clock=one) for one in (clock, *alternate_clocks(clock))),
        EndpointHealth(database, keyring, clock=clock),
        registrar,
        probe_key,
        routers=(routes.router(access, showing), operating),
    )
