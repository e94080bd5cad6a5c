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
