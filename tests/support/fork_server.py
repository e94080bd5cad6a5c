"""Real commands in milliseconds: one process has imported everything, and forks; each child may be killed.

Run as `python -m tests.support.fork_server` with a socket as its input. For each socket that it is sent there it forks
one like itself, which reads an order per line, a JSON object:

    {"arguments": ["serve"], "environment": {…}, "directory": …, "output": …, "errors": …, "script": …}

It starts `rivya-receiver serve` in a session of its own, with files for its output, and answers `{"pid": …}`. A child
that ends is reported as `{"ended": pid, "status": …}`. The end of its input ends it and kills all its children.

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
import threading
import traceback
from typing import Any

from pydantic import SecretStr

from app import cli
from app.cli.server import make_server
from app.core.settings import Settings
from app.main import Service
from tests.support.certificate_store import read_certificates_once
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
    children: dict[int, int] = {}  # pidfd → pid
    pending = b""
    while True:
        ready, _, _ = select.select([0, *children], [], [])
        for handle in children.keys() & set(ready):
            pid = children.pop(handle)
            os.close(handle)
            _, status = os.waitpid(pid, 0)
            _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})
        if 0 in ready:
            read = os.read(0, 65536)
            if not read:
                break
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                pid = _fork(json.loads(line))
                children[os.pidfd_open(pid)] = pid
                _say({"pid": pid})
    for pid in children.values():
        os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Make a service once, and throw it away: what its making has worked out and kept, each child finds done."""
    read_certificates_once()
    make_server(Service(Settings(rivya_api_key=SecretStr("nobody's"), receiver_public_url="https://nobody.example")))


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    output, errors = (os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("output", "errors"))
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((null, 0), (output, 1), (errors, 2)):
        os.dup2(old, new)
        os.close(old)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    if order["script"] is not None:
        FaultPoints(order["script"]).install()
    os._exit(_run(order["arguments"]))


def _run(arguments: list[str]) -> int:
    """The exit status of the command, as the interpreter would give it."""
    sys.argv = ["rivya-receiver", *arguments]
    status = 1
    try:
        cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - what the interpreter does at the end of a program
        traceback.print_exc()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()  # as the interpreter does: a thread that goes on keeps the program from ending
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
