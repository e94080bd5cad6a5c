"""What `rivya-receiver check` says, read back: each thing tested, its mark, and the words after it."""

from app.cli.check import check_deployment, line
from app.core.errors import HealthCheck
from app.core.settings import load
from app.sandbox.server import ServedSandbox
from tests.support.receivers import environment

NAMES = [
    "settings",
    "signature scheme",
    "public URL",
    "database",
    "migrations",
    "Rivya reachable",
    "API key valid",
    "scope generations:read",
    "scope generations:create",
    "scope webhooks:manage",
    "endpoint registered",
    "signing secret",
    "scheme in use",
    "deliveries",
    "polling",
]
# There is something to say of deliveries only once an endpoint is registered.
WITHOUT_ENDPOINT = [name for name in NAMES if name != "deliveries"]

CheckResults = dict[str, tuple[str, str]]


def read(lines: list[str]) -> CheckResults:
    """Mark and words by the name of what was tested, in the order in which it was said."""
    parts = [line.split(maxsplit=1) for line in lines]
    return {name: (mark, detail) for mark, rest in parts for name, _, detail in [rest.partition(": ")]}


async def checked(rivya: ServedSandbox | str, database_url: str, *, port: int = 8000, **changes: str) -> CheckResults:
    """Check within this process, which saves the second that a process takes to start."""
    url = rivya if isinstance(rivya, str) else rivya.base_url
    settings = environment(url, database_url, port, **changes)
    checks: list[HealthCheck] = []
    await check_deployment(load(**{name.lower(): value for name, value in settings.items()}), checks.append)
    results = read([line(check) for check in checks])
    assert all(check.ok for check in checks) == (not failing(results))
    return results


def failing(results: CheckResults) -> set[str]:
    """The names of what is not well."""
    return {name for name, (mark, _) in results.items() if mark != "ok"}
