"""URLs of PostgreSQL's are read as libpq reads them."""

import pytest

from app.core.database_url import normal_url, postgres_options


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgres://h/db", (("h", None),)),
        ("postgres://h1:1,h2,[::1]:3/db", (("h1", 1), ("h2", None), ("::1", 3))),
        ("postgres:///db?host=h1,h2&port=1,2", (("h1", 1), ("h2", 2))),
        ("postgres:///db?host=h1:1&host=h2:2", (("h1", 1), ("h2", 2))),
        ("postgres:///db?host=h1,h2&port=7", (("h1", 7), ("h2", 7))),
        ("postgres:///db?host=::1&port=7", (("::1", 7),)),
        ("postgres://me@/db?host=/cloudsql/a:b:c", (("/cloudsql/a:b:c", None),)),
        ("postgres://me@%2Frun%2Fpostgresql/db", (("/run/postgresql", None),)),
        ("postgres://me@:7/db", (("", 7),)),
        ("postgres:///db", (("", None),)),
        ("postgres://h1:1,h2:2/db?options=a@b", (("h1", 1), ("h2", 2))),
    ],
)
def test_hosts(url: str, hosts: tuple[tuple[str, int | None], ...]) -> None:
    options = postgres_options(url)
    assert (options.hosts, options.database) == (hosts, "db")


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("a%40%3A%2F%3F%25b", "a@:/?%b"),
        ("a/b", "a/b"),
        ("a?b", "a?b"),
        ("a+b", "a+b"),
        ("a:b", "a:b"),
        ("a@@b", "a@@b"),
        ("a#&= %b", "a#&= %b"),
    ],
)
def test_passwords(written: str, password: str) -> None:
    assert postgres_options(f"postgresql://me:{written}@h/db?sslmode=require").password == password
    assert password not in repr(postgres_options(f"postgresql://me:{written}@h/db"))


def test_user_password_and_database_may_be_in_the_query() -> None:
    options = postgres_options("postgresql://h?user=me&password=a+b%40&dbname=db&sslpassword=")
    assert (options.user, options.password, options.database, options.driver) == ("me", "a+b@", "db", {})


def test_a_normal_url_stays_as_it_is_and_loses_the_white_space_around_it() -> None:
    normal = normal_url(" postgres://me:p%40/?@h1:1,h2:2/db?sslmode=require&host=h3\n".replace("/?", "%2F"))
    assert normal == "postgresql+asyncpg://me:p%40%2F@h1:1,h2:2/db?sslmode=require&host=h3"
    assert normal_url(normal) == normal


def test_the_systems_certificates_are_asked_for_by_name() -> None:
    assert postgres_options("postgres://h/db?sslrootcert=system&ssl_min_protocol_version=TLSv1.3").driver == {
        "ssl": True,
        "dsn": "postgresql://?ssl_min_protocol_version=TLSv1.3",
    }


@pytest.mark.parametrize(
    ("url", "variables", "hosts"),
    [
        ("postgres://h/db", {"PGPORT": "7"}, (("h", 7),)),
        ("postgres://h:1/db", {"PGPORT": "abc"}, (("h", 1),)),
        ("postgres://h1,h2:2/db", {"PGPORT": "7"}, (("h1", 7), ("h2", 2))),
        ("postgres://h1,h2/db", {"PGPORT": "7, 8"}, (("h1", 7), ("h2", 8))),
        ("postgres:///db", {"PGHOST": "h1,/run/pg", "PGPORT": "7"}, (("h1", 7), ("/run/pg", 7))),
        ("postgres://h/db", {"PGHOST": "other", "PGPORT": " "}, (("h", None),)),
    ],
)
def test_variables_of_libpq_say_what_the_url_does_not(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    variables: dict[str, str],
    hosts: tuple[tuple[str, int | None], ...],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert postgres_options(url).hosts == hosts


@pytest.mark.parametrize(
    ("url", "variable", "value"),
    [
        ("postgres://h/db", "PGPORT", "abc"),
        ("postgres://h/db", "PGPORT", "0"),
        ("postgres://h/db", "PGPORT", "1,2"),
        ("postgres://h/db", "PGPORT", "tcp://10.0.0.1:5432"),
        ("postgres:///db", "PGHOST", "h:abc"),
        ("postgres:///db", "PGHOST", "h1,,h2"),
        ("postgres://h/db", "PGSSLMODE", "always"),
        ("postgres://h/db", "PGSSLMODE", "verify-full"),
        ("postgres://h/db", "PGSSLNEGOTIATION", "both"),
        ("postgres://h/db", "PGSSLMINPROTOCOLVERSION", "1.2"),
        ("postgres://h/db", "PGSSLMAXPROTOCOLVERSION", "TLS"),
        ("postgres://h/db", "PGGSSLIB", "other"),
        ("postgres://h/db", "PGTARGETSESSIONATTRS", "writer"),
        ("postgres://h/db", "PGSSLCERT", "/nowhere/cert.pem"),
    ],
)
def test_a_variable_of_libpq_that_can_not_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str, value: str
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match="sslmode=verify-full" if value == "verify-full" else variable):
        postgres_options(url)


def test_an_account_without_a_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    with pytest.raises(ValueError, match="names no user, nor does PGUSER, and the account 4000000"):
        postgres_options("postgres://h/db")
    monkeypatch.setenv("PGUSER", "me")
    assert postgres_options("postgres://h/db").user is None
    assert postgres_options("postgres://you@h/db").user == "you"


@pytest.mark.parametrize(
    ("query", "mode"),
    [("ssl=true", "require"), ("ssl=1", "require"), ("sslmode=no-verify", "require"), ("ssl=false", "disable")],
)
def test_words_of_other_drivers_for_tls_are_understood(query: str, mode: str) -> None:
    assert postgres_options(f"postgres://me@h/db?{query}").driver == {"dsn": f"postgresql://?sslmode={mode}"}
    with pytest.raises(ValueError, match="has sslmode with a value"):
        postgres_options("postgres://me@h/db?ssl=maybe")


@pytest.mark.parametrize("driver", ["postgres+asyncpg", "postgresql+psycopg2", "postgresql+psycopg"])
def test_another_driver_of_postgresql_means_the_same_database(driver: str) -> None:
    assert normal_url(f"{driver}://me@h/db") == "postgresql+asyncpg://me@h/db"
    with pytest.raises(ValueError, match="another database or driver"):
        normal_url("mysql+pymysql://me@h/db")
