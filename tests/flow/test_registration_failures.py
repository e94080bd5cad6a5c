"""Rivya down, slow or unwilling: the turn never raises, waits as it should, and /readyz says what to do."""

import pytest
from structlog.testing import capture_logs

from app.endpoint.repository import EndpointRepository
from app.sandbox.accounts import Key
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox
from tests.support.ports import free_port
from tests.support.registration_harness import Replica, room


async def _why(replica: Replica) -> str:
    [secret, _, endpoint] = await replica.health.health_checks()
    assert not secret.ok
    assert secret.is_required
    assert not endpoint.ok
    return endpoint.detail


async def test_rivya_down_is_tried_again_ever_more_slowly_until_it_is_up(database_url: str) -> None:
    async with room(database_url) as r:
        port = free_port()
        replica = await r.start(base_url=f"http://127.0.0.1:{port}")
        for doubled in (1, 2, 4, 8, 16, 32, 60, 60):
            await replica.reconciler.run_once()
            assert 0.8 * doubled <= replica.reconciler.retry_in <= 1.2 * doubled
            r.clock.advance(seconds=replica.reconciler.retry_in + 0.01)
        assert "can't be reached" in await _why(replica)
        sandbox = Sandbox(manual=True)
        async with serve_sandbox(sandbox, port=port):
            r.clock.advance(seconds=replica.reconciler.retry_in + 0.01)
            await replica.reconciler.run_once()
        assert len(sandbox.endpoints.by_id) == 1
        assert (await replica.learn()).snapshot.usable_secrets == 1
        assert all(finding.ok for finding in await replica.health.health_checks())


async def test_a_wish_for_a_pause_is_obeyed(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.*", status=429, retry_after="17")
        replica = await r.start()
        await replica.reconciler.run_once()
        assert replica.reconciler.retry_in == 17
        assert "rate_limited" in await _why(replica)


async def test_a_key_that_rivya_refuses_is_tried_rarely_and_named(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start(api_key="rvya_sk_unknown")
        await replica.reconciler.run_once()
        assert replica.reconciler.retry_in >= 48
        assert "RIVYA_API_KEY (api_key_invalid)" in await _why(replica)


async def test_a_missing_scope_is_named(database_url: str) -> None:
    async with room(database_url) as r:
        r.sandbox.keys.add(Key("rvya_sk_narrow", scopes=("generations:read",)))
        replica = await r.start(api_key="rvya_sk_narrow")
        await replica.reconciler.run_once()
        assert replica.reconciler.retry_in >= 48
        assert "webhooks:manage" in await _why(replica)


async def test_a_url_that_rivya_does_not_allow_names_the_setting(database_url: str) -> None:
    async with room(database_url) as r:
        r.sandbox.settings.url_rules = "strict"
        replica = await r.start()
        await replica.reconciler.run_once()
        assert replica.reconciler.retry_in >= 48
        assert "RECEIVER_PUBLIC_URL" in await _why(replica)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
@pytest.mark.parametrize("body", ["error", "garbage", "empty"])
async def test_no_answer_of_rivyas_leaves_the_turn_as_an_error(database_url: str, status: int, body: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.*", status=status, body=body)
        replica = await r.start()
        for _ in range(3):
            assert await replica.reconciler.run_once() > 0
        assert len(await r.rows()) == 1


async def test_nothing_emitted_tells_a_secret_or_a_path_key(
    database_url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logs:
        async with room(database_url) as r:
            r.fault("webhooks.create", times=1, when="after", connection="reset")
            replica = await r.start()
            for _ in range(8):
                r.clock.advance(seconds=6)
                await replica.reconciler.run_once()
            await replica.learn()
            [endpoint], row = r.at_rivya(), await r.row()
            shown = [
                repr(replica.keyring),
                repr(replica.reconciler),
                str(await replica.health.health_checks()),
                str(logs),
            ]
            shown += [repr(await replica.client.get_endpoint(endpoint.id)), caplog.text, *capfd.readouterr()]
            repository = EndpointRepository(replica.database)
            shown += [repr(stored) for stored in await repository.endpoints()]
            shown += [repr(stored) for stored in await repository.secrets(now=r.clock.now())]
    assert any(entry["event"] == "endpoint.registered" for entry in logs)
    for secret in (endpoint.secret, *endpoint.past_secrets):
        assert secret not in "".join(shown)
        assert secret not in str(row)
    assert row["path_key"] not in "".join(shown).replace(repr(endpoint.url), "")
