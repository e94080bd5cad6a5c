"""A bad setting is refused with a line that names the variable, what it got, and what would be right."""

import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from app.core.setting_sources import SECRETS, SettingsInvalid, read_sources
from app.core.settings import Settings, has_api_key, load
from app.rivya.schemes import SchemeInvalid, wanted_scheme

KEY = Fernet.generate_key().decode()
GOOD = {
    "RIVYA_API_KEY": "rvya_sk_0123456789",
    "RECEIVER_PUBLIC_URL": "https://receiver.example.com",
    "RECEIVER_ENCRYPTION_KEYS": KEY,
    "RECEIVER_API_TOKENS": "app:write:0123456789abcdef,ops:admin:fedcba9876543210",
}


def settings(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Settings:
    for name, value in {**GOOD, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return load()


def test_good_settings_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = settings(monkeypatch, RECEIVER_POLL_GRACE="1.5", DATABASE_URL="postgresql://me@db/receiver")
    assert [token.name for token in taken.receiver_api_tokens] == ["app", "ops"]
    assert taken.receiver_poll_grace is not None
    assert taken.receiver_poll_grace.total_seconds() == 1.5
    assert taken.database_url == "postgresql+asyncpg://me@db/receiver"


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("RIVYA_API_KEY", None, "is not set"),
        ("RIVYA_BASE_URL", "http://rivya.ai", "must be https"),
        ("RECEIVER_PUBLIC_URL", None, "is not set"),
        ("RECEIVER_PUBLIC_URL", "receiver.example.com", "write https://host"),
        ("RECEIVER_PUBLIC_URL", "http://receiver.example.com", "must begin with https://"),
        ("RECEIVER_PUBLIC_URL", "https://me:password@receiver.example.com", "must not carry credentials"),
        ("RECEIVER_PUBLIC_URL", "https://receiver.example.com/#top", "must not carry a query or a fragment"),
        ("RECEIVER_PUBLIC_URL", "https://localhost", "not a loopback, private or reserved one"),
        ("RECEIVER_PUBLIC_URL", "https://127.0.0.1:8000", "not a loopback, private or reserved one"),
        ("RECEIVER_PUBLIC_URL", "https://127.1", "not a loopback, private or reserved one"),
        ("RECEIVER_PUBLIC_URL", "https://10.1.2.3", "not a loopback, private or reserved one"),
        ("RECEIVER_PUBLIC_URL", "https://[fe80::1]", "not a loopback, private or reserved one"),
        ("RECEIVER_PUBLIC_URL", "https://receiver.internal", "not a loopback, private or reserved one"),
        ("RECEIVER_PUBLIC_URL", "https://receiver", "not a loopback, private or reserved one"),
        ("RECEIVER_PUBLIC_URL", "https://receiver.example.com:port", "write https://host"),
        ("RECEIVER_API_TOKENS", "app:write:tooshort", "at least 16 are needed"),
        ("RECEIVER_API_TOKENS", "app:owner:0123456789abcdef", "a role of read, write, admin, read-own or write-own"),
        ("RECEIVER_API_TOKENS", "0123456789abcdef", "must be name:role:token"),
        ("RECEIVER_API_TOKENS", "a:read:0123456789abcdef,a:read:0123456789abcdeg", "same name"),
        ("RECEIVER_ENCRYPTION_KEYS", None, "is not set"),
        ("RECEIVER_ENCRYPTION_KEYS", "not-a-key", "44 characters"),
        ("RECEIVER_API_TOKENS", "a:read:0123456789abcdef,b:admin:0123456789abcdef", "the same token"),
        ("RECEIVER_API_TOKENS", "a:read:0123456789abcdéf", "plain ASCII"),
        ("RECEIVER_API_TOKENS", "a\udcff:read:0123456789abcdef", "printable characters only"),
        ("RIVYA_API_KEY", "rvya sk", "without spaces"),
        ("RIVYA_SIGNING_SECRET", "x", "at least 8 characters"),
        ("RECEIVER_PUBLIC_URL", "https://[64:ff9b::7f00:1]", "not a loopback, private or reserved one"),
        ("RECEIVER_POLL_RATE", "0.000001", "greater than or equal to 0.01"),
        ("RECEIVER_POLL_GRACE", "0", "more than 0 and at most"),
        ("RECEIVER_POLL_HORIZON", "1e9", "at most 31622400"),
        ("RECEIVER_MIGRATE_ON_START", "perhaps", "must be true or false"),
        ("RECEIVER_MAX_CONNECTIONS", "0", "greater than or equal to 1"),
        ("RECEIVER_KEEP_ALIVE", "0", "more than 0 and at most"),
        ("RECEIVER_TRUSTED_PROXIES", "10.0.0.0/8,*", "must be addresses or networks"),
        ("RECEIVER_NOTIFY_ALLOW", "shop,http://other", "entry 2 must be a host"),
        ("RECEIVER_CALLBACK_ALLOW", "*", "entry 1 must be a host"),
        ("RECEIVER_CALLBACK_SECRET", "0123456789abcdef", "must be 32 characters or more"),
        ("RECEIVER_FAST_PATH", "sometimes", "must be true or false"),
        ("DATABASE_URL", "postgresql://me@db:abc/receiver", "write sqlite+aiosqlite"),
        ("RECEIVER_PORT", "http", "valid integer"),
        ("RECEIVER_POLL_RATE", "0", "greater than or equal to 0.01"),
        ("RECEIVER_POLL_GRACE", "a minute", "must be a number of seconds"),
        ("RECEIVER_LOG_FORMAT", "xml", "'json' or 'console'"),
        ("DATABASE_URL", "mysql://root:password@db/receiver", "write sqlite+aiosqlite"),
        ("DATABASE_URL", "sqlite+aiosqlite://", "would lose everything"),
        ("DATABASE_URL", "postgresql+pg8000://db/receiver", "another database or driver"),
        ("DATABASE_URL", "postgresql://db/receiver?sslmode=yes", "sslmode with a value"),
        ("DATABASE_URL", "postgresql://db/receiver?sslmode=verify-full", "without sslrootcert"),
        ("DATABASE_URL", "postgresql://db/receiver?sslmode=require&sslrootcert=/no/such", "(/no/such: No such file"),
        ("DATABASE_URL", "postgresql://db/receiver?sslmode=require&sslcert=/no/such", "sslcert with a file"),
        (
            "DATABASE_URL",
            "postgresql://db/receiver?sslmode=require&sslrootcert=system",
            "goes with sslmode=verify-full",
        ),
        ("DATABASE_URL", "postgresql://db/receiver?channel_binding=require", "channel_binding with a value"),
        ("DATABASE_URL", "postgresql://db/receiver?target_session_attrs=x", "target_session_attrs with a value"),
        ("DATABASE_URL", "postgresql://db/receiver?connect_timeout=soon", "connect_timeout that is no whole number"),
        ("DATABASE_URL", "postgresql://db/receiver?keepalives=1", "parameter keepalives that"),
        ("DATABASE_URL", "postgresql://db/receiver?pgbouncer=yes", "has pgbouncer with a value that"),
        ("DATABASE_URL", "postgresql://db/receiver?sslmode=prefer&hush=true", "parameter (number 2) that"),
        ("DATABASE_URL", "postgresql://me:a@b/c@db/receiver", "percent-encoded"),
        ("DATABASE_URL", "postgresql://db/receiver?options=-cTimeZone%3DCET", "options that set timezone"),
        ("DATABASE_URL", "postgresql://h1,h2/receiver?port=1,2,3", "more or fewer ports than hosts"),
        ("DATABASE_URL", "postgresql://h1,,h2/receiver", "is not a database URL"),
        ("DATABASE_URL", "postgresql://h1:99999/receiver", "is not a database URL"),
    ],
)
def test_a_bad_setting_is_named_in_one_line_with_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, right: str
) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(monkeypatch, **{name: value})
    [line] = str(refused.value).splitlines()
    assert line.startswith(f"{name}: ")
    assert right in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECEIVER_API_TOKENS", "app:owner:this-is-the-secret"),
        ("RECEIVER_ENCRYPTION_KEYS", "this-is-the-secret"),
        ("DATABASE_URL", "mysql://root:this-is-the-secret@db/receiver"),
        ("DATABASE_URL", "postgresql://db/receiver?password=this-is-the-secret&sslmode=yes"),
        ("DATABASE_URL", "postgresql://me:x@this-is-the-secret@db:0/receiver"),
        ("DATABASE_URL", "postgresql://me:1/x?this-is-the-secret@db/receiver"),
        ("DATABASE_URL", "postgresql://me@db/receiver?sslmode=this-is-the-secret"),
        ("RECEIVER_PUBLIC_URL", "https://me:this-is-the-secret@receiver.example.com"),
        ("RIVYA_API_KEY", "this-is\nthe-secret"),
    ],
)
def test_a_refusal_shows_no_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(monkeypatch, **{name: value})
    assert "this-is-the-secret" not in str(refused.value)


def test_every_bad_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(monkeypatch, RECEIVER_PORT="x", RECEIVER_POLL_RATE="y", RECEIVER_LOG_FORMAT="z")
    assert len(str(refused.value).splitlines()) == 3


def test_a_new_user_is_told_at_once_of_everything_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(monkeypatch, RIVYA_API_KEY=None, RECEIVER_PUBLIC_URL=None, RECEIVER_ENCRYPTION_KEYS=None)
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "RIVYA_API_KEY",
        "RECEIVER_PUBLIC_URL",
        "RECEIVER_ENCRYPTION_KEYS",
    ]


def test_a_bad_base_url_says_nothing_of_a_local_public_url(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(monkeypatch, RIVYA_BASE_URL="http://10.0.0.1", RECEIVER_PUBLIC_URL="http://127.0.0.1:8000")
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == ["RIVYA_BASE_URL"]


def test_a_local_public_url_is_fine_for_a_rivya_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    local = settings(monkeypatch, RIVYA_BASE_URL="http://127.0.0.1:9000/", RECEIVER_PUBLIC_URL="http://127.0.0.1:8000/")
    assert (local.rivya_base_url, local.receiver_public_url) == ("http://127.0.0.1:9000", "http://127.0.0.1:8000")


def test_with_a_signing_secret_given_nothing_is_registered_and_no_public_url_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_hand = settings(
        monkeypatch, RIVYA_SIGNING_SECRET="whsec_0123456789", RECEIVER_PUBLIC_URL=None, RECEIVER_ENCRYPTION_KEYS=None
    )
    assert not by_hand.registers_endpoint


def test_settings_shown_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = repr(settings(monkeypatch, RIVYA_SIGNING_SECRET="whsec_very_secret"))
    for secret in ("whsec_very_secret", GOOD["RIVYA_API_KEY"], KEY, "0123456789abcdef"):
        assert secret not in shown


def test_a_file_env_that_is_no_text_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"RIVYA_API_KEY=\xff\xfe")
    with pytest.raises(SettingsInvalid, match=r"^\.env: is not UTF-8 text; save it as such$"):
        load()
    assert has_api_key()


def test_whether_this_is_the_real_thing_is_told_by_the_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_api_key()
    monkeypatch.setenv("RIVYA_API_KEY", GOOD["RIVYA_API_KEY"])
    assert has_api_key()


def test_a_proxy_that_rivya_cannot_be_asked_through_is_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@proxy:1080")
    with pytest.raises(SettingsInvalid, match=r"^ALL_PROXY: must be http://[^\n]*$") as refused:
        settings(monkeypatch)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "hunter2://host"),
        ("DATABASE_URL", "hunter"),
        ("DATABASE_URL", "postgresql://u:h/alf?hunter@db/x"),
        ("DATABASE_URL", "postgresql://db/x?hunter=1"),
        ("RECEIVER_API_TOKENS", "hunter2hunter2hunter2:write:short"),
        ("RECEIVER_API_TOKENS", "hunter2hunter2hunter2"),
        ("RECEIVER_API_TOKENS", "shop:hunter2hunter2hunter2:write"),
        ("RECEIVER_PORT", "rvya_sk_hunter2"),
        ("RECEIVER_LOG_FORMAT", "rvya_sk_hunter2"),
        ("RIVYA_BASE_URL", "rvya_sk_hunter2"),
        ("RIVYA_BASE_URL", "https://rivya.ai?key=hunter2"),
        ("RECEIVER_PUBLIC_URL", "whsec_hunter2"),
        ("RECEIVER_POLL_GRACE", "hunter2hunter2"),
        ("RECEIVER_TRUSTED_PROXIES", "hunter2"),
        ("RECEIVER_SECRETS_DIR", "hunter2"),
        ("RIVYA_SIGNING_SECRET_FILE", "hunter2"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_printed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(monkeypatch, **{name: value})
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("text", ["whsec_hunter2", "body;key=hunter2", "body;hunter2=1", "body;signature=hunter 2"])
def test_a_secret_in_place_of_a_scheme_is_not_printed(text: str) -> None:
    with pytest.raises(SchemeInvalid) as refused:
        wanted_scheme(text)
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("name", SECRETS)
def test_each_secret_may_be_in_a_file_and_a_newline_at_its_end_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    others = {"RIVYA_SIGNING_SECRET": "whsec_0123456789", "RECEIVER_CALLBACK_SECRET": "0123456789abcdef" * 2}
    values = {**GOOD, **others, "DATABASE_URL": "postgresql://me@db/receiver"}
    expected = settings(monkeypatch, **values)
    file = tmp_path / "secret"
    file.write_text(f"{values[name.upper()]}\n")
    assert settings(monkeypatch, **{**values, name.upper(): None, f"{name.upper()}_FILE": str(file)}) == expected
    assert read_sources(Settings)[name] == (str(file), values[name.upper()])


@pytest.mark.parametrize("file", ["rivya_api_key", "RIVYA_API_KEY"])
def test_a_directory_of_secrets_gives_what_is_not_given_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    (tmp_path / file).write_text("rvya_sk_of_a_file\n")
    (tmp_path / "receiver_encryption_keys").write_text(Fernet.generate_key().decode())
    taken = settings(monkeypatch, RIVYA_API_KEY=None, RECEIVER_SECRETS_DIR=str(tmp_path))
    assert taken.rivya_api_key.get_secret_value() == "rvya_sk_of_a_file"
    assert [key.get_secret_value() for key in taken.receiver_encryption_keys] == [KEY]


def test_a_file_of_settings_may_name_a_file_of_a_secret_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("rvya_sk_of_a_file")
    (tmp_path / ".env").write_text("RIVYA_API_KEY_FILE=key\nRECEIVER_POLL_RATE=2\nRECEIVER_PORT=1\n")
    settings(monkeypatch, RIVYA_API_KEY=None, RECEIVER_PORT="2", RECEIVER_HOST="")
    sources = read_sources(Settings)
    assert sources["rivya_api_key"] == ("key", "rvya_sk_of_a_file")
    assert sources["receiver_poll_rate"] == (".env", "2")
    assert sources["receiver_port"] == ("environment", "2")
    assert "receiver_host" not in sources


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"RIVYA_API_KEY_FILE": "key"}, "RIVYA_API_KEY_FILE: is set, and so is RIVYA_API_KEY; remove one of them"),
        (
            {"RIVYA_API_KEY": None, "RIVYA_API_KEY_FILE": "nowhere"},
            "RIVYA_API_KEY_FILE: the file can't be read (No such file or directory)",
        ),
        ({"RECEIVER_SECRETS_DIR": "nowhere"}, "RECEIVER_SECRETS_DIR: there is no such directory"),
    ],
)
def test_a_file_of_a_secret_that_cannot_be_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], line: str
) -> None:
    with pytest.raises(SettingsInvalid, match=f"^{re.escape(line)}$"):
        settings(monkeypatch, **changes)
