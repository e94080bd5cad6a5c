"""Where PostgreSQL is installed on this machine, and whom its server may run as."""

import pwd
import shutil
from pathlib import Path


class PostgresUnavailableError(RuntimeError):
    """PostgreSQL is not installed, or a cluster did not start."""


def find_binaries() -> Path:
    """The folder of `initdb` and `postgres`: from PATH, or the newest that Debian has installed."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not installed:
        raise PostgresUnavailableError(
            "these tests need PostgreSQL: install it (Debian: apt-get install postgresql) or set DATABASE_URL_TEST"
        )
    return installed[-1].parent


def unprivileged_account() -> pwd.struct_passwd:
    """Whom the server runs as when we are root, which PostgreSQL refuses to be."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
