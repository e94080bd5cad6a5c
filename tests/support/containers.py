"""Builds the image and runs containers of it, with Docker or Podman, whichever this machine has."""

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.deployment import ROOT, compose

IMAGE = "rivya-receiver-test"
BASE_SCRIPT = ROOT / "tests" / "image" / "debian_base.sh"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_CONFIGURATION = Path("/etc/pip.conf")
_CACHE = ROOT / ".image"
_BUILD_SECONDS, _SECONDS = 300, 60
# Docker's own default may be more than the machine lets anybody have.
_LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")


class ContainerError(AssertionError):
    """A command of the engine failed; the text is what it wrote."""


class Engine:
    """Docker, or Podman with images of its own under `.image/`. Raises ContainerError where there is neither."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        if shutil.which("docker") and not _run(["docker", "info"], self._environment, _SECONDS).returncode:
            self._command = ["docker"]
            self._build_options: list[str] = []
        elif shutil.which("podman"):
            self._command = ["podman", "--log-level=fatal", *self._without_systemd()]
            # Podman's own format of images has no health check.
            self._build_options = ["--format=docker", "--isolation=chroot"]
        else:
            raise ContainerError("the image is built with docker or podman: install one (Debian: podman)")

    def _without_systemd(self) -> list[str]:
        if os.geteuid() or Path("/run/systemd/system").exists():
            return []
        self._environment["STORAGE_DRIVER"] = "vfs"  # the others need more than a sandboxed machine may have
        storage = [f"--root={_CACHE / 'storage'}", f"--runroot={_CACHE / 'run'}"]
        # crun refuses machines that have control groups of both versions.
        return [*storage, "--cgroup-manager=cgroupfs", *(["--runtime=runc"] if shutil.which("runc") else [])]

    def run(self, *words: str, seconds: float = _SECONDS) -> str:
        """The output of a command of the engine. Raises ContainerError if it fails."""
        ended = self.try_run(*words, seconds=seconds)
        if ended.returncode:
            raise ContainerError(f"{' '.join(words)}: exit status {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended.stdout.strip()

    def try_run(self, *words: str, seconds: float = _SECONDS) -> subprocess.CompletedProcess[str]:
        """How a command of the engine ended."""
        return _run([*self._command, *words], self._environment, seconds)

    def build(self) -> dict[str, Any]:
        """Build the image on the base that BASE names, by default Debian's packages; returns what is said about it."""
        base = os.environ.get("BASE") or self._debian_base()
        files = {"pip": PIP_CONFIGURATION, "certificates": CERTIFICATES}
        secrets = [f"--secret=id={name},src={path}" for name, path in files.items() if path.exists()]
        arguments = [f"--build-arg=BASE={base}", f"--build-arg=VERSION={version()}", "--build-arg=REVISION=tested"]
        options = [*self._build_options, "--network=host", *secrets, *arguments]
        self.run("build", *options, "--tag", IMAGE, str(ROOT), seconds=_BUILD_SECONDS)
        [description] = json.loads(self.run("image", "inspect", IMAGE))
        return dict(description)

    def _debian_base(self) -> str:
        name = f"rivya-receiver-base:{hashlib.sha256(BASE_SCRIPT.read_bytes()).hexdigest()[:12]}"
        if self.try_run("image", "inspect", name).returncode:
            _CACHE.mkdir(exist_ok=True)
            file = _CACHE / "base.tar"
            ended = _run(["sh", str(BASE_SCRIPT), str(file)], dict(os.environ), _BUILD_SECONDS)
            if ended.returncode:
                raise ContainerError(f"{BASE_SCRIPT.name}: {ended.stderr}")
            self.run("import", str(file), name)
            file.unlink()
        return name


class Container:
    """One container of the image, confined as docker-compose.yml confines it, on this machine's network."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        *words: str,
        settings: Mapping[str, str] | None = None,
        volume: str = "",
        secrets: Path | None = None,
    ) -> None:
        self._engine, self.name = engine, name
        environment = [f"--env={key}={value}" for key, value in (settings or {}).items()]
        self._options = [*CONFINED, *_LIMITS, "--network=host", *environment]
        if volume:
            self._options.append(f"--volume={volume}:/data")
        if secrets is not None:
            self._options.append(f"--volume={secrets}:/run/secrets:ro")
        self._words = words

    def start(self) -> None:
        """Make the container and start it."""
        self._engine.run("run", "--detach", "--name", self.name, *self._options, IMAGE, *self._words)

    def start_again(self) -> None:
        """Start the stopped container once more."""
        self._engine.run("start", self.name)

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run a container of this kind to its end."""
        return self._engine.try_run("run", "--rm", "--name", self.name, *self._options, IMAGE, *self._words)

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """How a command in the running container ended."""
        return self._engine.try_run("exec", self.name, *words)

    def stop(self) -> int:
        """Send the stop signal, kill after 10 seconds; the exit status (137 after the latter)."""
        self._engine.run("stop", "--time", "10", self.name)
        return int(self.inspect()["State"]["ExitCode"])

    def inspect(self) -> dict[str, Any]:
        """What the engine says about the container."""
        [description] = json.loads(self._engine.run("container", "inspect", self.name))
        return dict(description)

    def log(self) -> str:
        """What the container has written."""
        ended = self._engine.try_run("logs", self.name)
        return ended.stdout + ended.stderr

    def remove(self) -> None:
        """Kill the container if it runs, and delete it."""
        self._engine.try_run("rm", "--force", self.name)


def version() -> str:
    """The version of the package in this checkout."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _confined() -> list[str]:
    """The options of `docker run` for what docker-compose.yml says about our containers."""
    service = compose()["services"]["receiver"]
    options = ["--read-only"] if service["read_only"] else []
    options += [f"--tmpfs={path}" for path in service["tmpfs"]]
    options += [f"--cap-drop={name}" for name in service["cap_drop"]]
    options += [f"--security-opt={option.removesuffix(':true')}" for option in service["security_opt"]]
    return [*options, f"--memory={service['mem_limit']}", f"--pids-limit={service['pids_limit']}"]


CONFINED = _confined()


def _run(command: list[str], environment: dict[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, check=False, capture_output=True, text=True, timeout=seconds
    )
