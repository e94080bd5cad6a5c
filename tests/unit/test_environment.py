"""The environment of others: quotes, Kubernetes, misspelt names and missing files do no harm, or are named."""

from pathlib import Path

import pytest

from app.core.setting_sources import SettingsInvalid
from app.core.settings import Settings, load, warnings

GOOD = {
    "RIVYA_API_KEY": "rvya_sk_0123456789",
    "RECEIVER_PUBLIC_URL": "https://receiver.example.com",
    "RECEIVER_ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
}

QUOTED = [
    ("RIVYA_API_KEY", "rvya_sk_0123456789"),
    ("RIVYA_BASE_URL", "https://rivya.example.com"),
    ("RIVYA_SIGNING_SECRET", "whsec_0123456789"),
    ("RIVYA_SIGNATURE_SCHEME", "body;signature=X-Signature"),
    ("RECEIVER_PUBLIC_URL", "https://receiver.example.com"),
    ("RECEIVER_API_TOKENS", "app:write:0123456789abcdef"),
    ("RECEIVER_ENCRYPTION_KEYS", GOOD["RECEIVER_ENCRYPTION_KEYS"]),
    ("RECEIVER_PORT", "8001"),
    ("RECEIVER_FAST_PATH", "false"),
    ("RECEIVER_POLL_GRACE", "30"),
    ("RECEIVER_POLL_RATE", "2.5"),
    ("RECEIVER_LOG_FORMAT", "console"),
    ("DATABASE_URL", "postgresql://me:p%27@db/receiver"),
]


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in {**GOOD, **variables}.items():
        monkeypatch.setenv(name, value)
    return load()


@pytest.mark.parametrize(("name", "value"), QUOTED)
@pytest.mark.parametrize("form", ['"{}"', "'{}'", " {} ", '" {} "', "{}\n", "{}\r\n"])
def test_quotes_and_blanks_around_any_value_do_not_count(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, form: str
) -> None:
    taken = settings(monkeypatch, **{name: form.format(value)})
    assert getattr(taken, name.lower()) == getattr(settings(monkeypatch, **{name: value}), name.lower())


def test_quotes_around_each_entry_of_a_list_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = settings(monkeypatch, RECEIVER_API_TOKENS='"a:read:0123456789abcdef","b:write:fedcba9876543210"')
    plain = settings(monkeypatch, RECEIVER_API_TOKENS="a:read:0123456789abcdef,b:write:fedcba9876543210")
    assert taken.receiver_api_tokens == plain.receiver_api_tokens


@pytest.mark.parametrize("value", ['""', "' '", "\t"])
def test_a_value_of_quotes_and_blanks_only_is_not_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^RIVYA_API_KEY: is not set"):
        settings(monkeypatch, RIVYA_API_KEY=value)


def test_what_kubernetes_makes_for_a_service_of_our_name_is_skipped_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    links = {
        "RECEIVER_PORT": "tcp://10.43.12.7:8000",
        "RECEIVER_SERVICE_HOST": "10.43.12.7",
        "RECEIVER_SERVICE_PORT": "8000",
        "RECEIVER_SERVICE_PORT_HTTP": "8000",
        "RECEIVER_PORT_8000_TCP": "tcp://10.43.12.7:8000",
        "RECEIVER_PORT_8000_TCP_PROTO": "tcp",
        "RECEIVER_PORT_8000_TCP_ADDR": "10.43.12.7",
        "RIVYA_PORT": "tcp://10.43.12.8:80",
    }
    assert settings(monkeypatch, **links).receiver_port == 8000
    [line] = warnings()
    assert line.startswith("RECEIVER_PORT: ignored")
    assert "enableServiceLinks" in line
    (tmp_path / ".env").write_text("RECEIVER_PORT=8002\n")
    assert load().receiver_port == 8002


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RECEIVER_POL_RATE", "did you mean RECEIVER_POLL_RATE?"),
        ("RIVYA_PUBLIC_URL", "did you mean RECEIVER_PUBLIC_URL?"),
        ("RIVYA_APIKEY", "did you mean RIVYA_API_KEY?"),
        ("RECIEVER_PUBLIC_URL", "did you mean RECEIVER_PUBLIC_URL?"),
        ("DATABSE_URL", "did you mean DATABASE_URL?"),
        ("RECEIVER_XYZ", "see docs/configuration.md"),
    ],
)
def test_a_misspelt_name_is_warned_of_with_the_nearest_real_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, meant: str
) -> None:
    settings(monkeypatch)
    assert warnings() == []
    (tmp_path / ".env").write_text(f"{name}=1\n")
    assert warnings() == [f"{name}: no setting has this name; {meant}"]
    monkeypatch.delenv("RIVYA_API_KEY")
    with pytest.raises(SettingsInvalid) as refused:
        load()
    assert str(refused.value).splitlines()[-1] == f"{name}: no setting has this name; {meant}"


def test_names_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("OPENAI_API_KEY", "DATABASE_URL_TEST", "DATABASE_HOST", "PUBLIC_URL", "PORT", "RECEIVER_TOKEN")
    settings(monkeypatch, **dict.fromkeys(others, "1"))
    assert warnings() == []


@pytest.mark.parametrize("url", ["https://rivya.ai/api/v1", "https://rivya.ai/api/v1/", '"https://rivya.ai/api/v1"'])
def test_a_base_url_with_the_path_of_the_api_is_corrected_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert settings(monkeypatch, RIVYA_BASE_URL=url).rivya_base_url == "https://rivya.ai"
    assert warnings() == ["RIVYA_BASE_URL: /api/v1 at its end was taken off, since the service adds it"]


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"])
def test_a_file_for_tls_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"^{name}: got '/nowhere/file', which can't be used"):
        settings(monkeypatch, **{name: "/nowhere/file"})


@pytest.mark.parametrize("name", ["PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"])
def test_a_file_for_tls_to_the_database_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    files = {name: "/nowhere/file"}
    assert settings(monkeypatch, **files, DATABASE_URL="postgresql://me@db/x?sslmode=disable").receiver_port == 8000
    with pytest.raises(SettingsInvalid, match=f"; is used with {name}, .*: /nowhere/file$"):
        settings(monkeypatch, **files, DATABASE_URL="postgresql://me@db/x?sslmode=require")


def test_a_file_without_certificates_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(SettingsInvalid, match=r"^SSL_CERT_FILE: "):
        settings(monkeypatch, SSL_CERT_FILE=str(tmp_path / "empty.pem"))


def test_a_file_env_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(b'\xef\xbb\xbfRECEIVER_PORT="8003"\r\nRECEIVER_LOG_FORMAT=console\r\n')
    assert (settings(monkeypatch).receiver_port, load().receiver_log_format) == (8003, "console")
