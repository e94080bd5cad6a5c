"""What the test session starts does not outlive it, even when the session itself is killed."""

import subprocess


class ParentWatch:
    """Runs a shell command when this process dies, unless `release` is called first.

    A small shell waits for the end of a pipe that only this process holds open. `SIGKILL` closes it as well as an
    orderly exit does, which is what `atexit` and fixture teardown cannot promise.
    """

    def __init__(self, command: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"cat >/dev/null\n{command}", "parent_watch", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def release(self) -> None:
        """End the shell without running the command. Safe to call twice."""
        self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
