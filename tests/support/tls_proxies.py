"""The nginx and the Caddy of deploy/, run with another port, certificate and receiver than they are written for."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.certificates import write_certificate
from tests.support.deployment import ROOT
from tests.support.ports import free_port

KINDS: Final = ("nginx", "caddy")
_SECONDS: Final = 20
_NGINX: Final = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/rivya-receiver.conf;
}}
"""


@contextmanager
def tls_proxy(kind: str, upstream: int, directory: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    """A proxy in front of the port `upstream`: its URL, and what to verify it with."""
    certificate, key = write_certificate(directory)
    port = free_port()
    changes = {"127.0.0.1:8000": f"127.0.0.1:{upstream}"}
    if kind == "nginx":
        changes |= {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/receiver.pem": str(certificate),
            "/etc/ssl/receiver.key": str(key),
        }
        _write_changed("nginx/rivya-receiver.conf", changes, directory)
        user = "" if os.geteuid() else "user root;"
        (directory / "nginx.conf").write_text(_NGINX.format(directory=directory, user=user))
        words = ["-e", f"{directory}/error.log", "-c", f"{directory}/nginx.conf"]
    else:
        head = f"{{\n\tadmin off\n}}\nhttps://127.0.0.1:{port} {{\n\ttls {certificate} {key}"
        _write_changed("caddy/Caddyfile", {**changes, "receiver.example.com {": head}, directory)
        words = ["run", "--adapter", "caddyfile", "--config", f"{directory}/Caddyfile"]
    program = shutil.which(kind, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert program is not None, f"the tests need {kind} (Debian: {kind})"
    environment = {"PATH": os.defpath, "HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    with (directory / "proxy.log").open("wb") as log:
        process = subprocess.Popen([program, *words], env=environment, cwd=directory, stdout=log, stderr=log)
    try:
        _wait_for(port, process, directory)
        yield f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=certificate)
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _write_changed(name: str, changes: Mapping[str, str], directory: Path) -> None:
    text = (ROOT / "deploy" / name).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{name} has no longer one {old!r}"
        text = text.replace(old, new)
    (directory / Path(name).name).write_text(text)


def _wait_for(port: int, process: subprocess.Popen[bytes], directory: Path) -> None:
    for _ in range(_SECONDS * 20):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        else:
            return
    logs = [path.read_text() for path in (directory / "proxy.log", directory / "error.log") if path.exists()]
    raise AssertionError(f"the proxy does not listen:\n{''.join(logs)}")
