"""Real receiver processes in milliseconds: one process has imported everything, and forks; each child may be killed.

Run as `python -m tests.support.fork_server` with a socket as its input. For each socket that it is sent there it forks
one like itself, which reads a JSON object per line: `{"environment": …, "log": …, "script": …}` starts a receiver and
is answered with `{"pid": …}`. A child that ends is told as `{"ended": pid, "status": …}`. The end of its input ends it
and all its children.

`script` names a file with the fault point at which the child kills itself with SIGKILL, see
`tests.support.fault_points`; or is null.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any

import uvloop
from pydantic import SecretStr

from app.cli.server import make_server, serve_until_stopped
from app.core import logs
from app.core.settings import Settings, load
from app.main import Service
from tests.support.fault_points import FaultPoints


def main() -> None:
    _warm_up()
    # What is frozen no child's collector walks through: a walk would copy much of this process's memory into the child.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=0) as control:
        while True:
            _, sent, _, _ = socket.recv_fds(control, 1, 1)
            if not sent:
                return
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in (0, 1):
                    os.dup2(sent[0], number)
                os.close(sent[0])
                _start_receivers()
                os._exit(0)
            os.close(sent[0])


def _start_receivers() -> None:
    children: set[int] = set()
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.02)
        if ready:
            read = os.read(0, 65536)
            if not read:
                break
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                pid = _fork(json.loads(line))
                children.add(pid)
                _say({"pid": pid})
        _report_ended(children)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Make a service once, and throw it away: what its making has worked out and kept, each child finds done."""
    make_server(Service(Settings(rivya_api_key=SecretStr("nobody's"), receiver_public_url="https://nobody.example")))


def _report_ended(children: set[int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ.clear()
    os.environ.update(order["environment"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((null, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    if order["script"] is not None:
        FaultPoints(order["script"]).install()
    settings = load()
    logs.configure(settings.receiver_log_format)
    os._exit(uvloop.run(serve_until_stopped(settings)))


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
