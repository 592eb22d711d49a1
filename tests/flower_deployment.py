"""Flower's real engine for tests: a SuperLink, and SuperNodes, each a process of its own on the loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

BIN = Path(sys.executable).parent
CONNECTION = "under-test"
STARTED_AS = "COOPT_TEST_STARTED_AS"  # an environment variable, which all descendants inherit
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # one machine alone: everything on the loopback
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Identity:
    """What TLS needs: the authority that nodes trust, and the server's certificate and key, as PEM files."""

    authority: Path
    certificate: Path
    key: Path


@dataclass
class Deployment:
    """A SuperLink and its SuperNodes; leaving the context ends every process that it started.

    Parameters
    ----------
    folder : Path
        For logs, state and Flower's home.
    simulation : bool
        Whether the SuperLink simulates its nodes.
    identity : Identity, optional
        For TLS; without it nothing is encrypted.
    authenticate : bool
        Whether the SuperLink lets in nodes with a registered key alone.
    """

    folder: Path
    simulation: bool = False
    identity: Identity | None = None
    authenticate: bool = False
    port: int = field(init=False)
    superlink: subprocess.Popen[bytes] | None = field(init=False, default=None)
    nodes: dict[int, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        trust = f'root-certificates = "{self.identity.authority}"' if self.identity else "insecure = true"
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n'
            f'[superlink.{CONNECTION}]\naddress = "{self.address}"\n{trust}\n',
            encoding="utf-8",
        )
        try:
            self.start_superlink()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.identity else 'http'}://{self.address}"

    def start_superlink(self) -> None:
        """Start the SuperLink, with the state of the one before if there was one, and wait for it."""
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--database", str(self.folder / "state.db")]
        command += ["--simulation"] if self.simulation else []
        command += ["--enable-supernode-auth"] if self.authenticate else []
        if self.identity is None:
            command.append("--insecure")
        else:
            command += ["--ssl-ca-certfile", str(self.identity.authority)]
            command += ["--ssl-certfile", str(self.identity.certificate)]
            command += ["--ssl-keyfile", str(self.identity.key)]
        self.superlink = self._start(command, "superlink")
        wait_until(self._answers, 120, f"the SuperLink on {self.address}", self.log("superlink"))

    def start_node(self, name: int, *, device: int | None = None, key: Path | None = None) -> None:
        """Start a SuperNode, for the device of that number if none is given, perhaps with a private key."""
        command = ["flower-supernode", "--superlink", self.address]
        command += ["--host", "127.0.0.1", "--port", str(free_port())]
        command += ["--node-config", f"partition-id={name if device is None else device}"]
        if self.identity is None:
            command.append("--insecure")
        else:
            command += ["--root-certificates", str(self.identity.authority)]
        if key is not None:
            command += ["--auth-supernode-private-key", str(key)]
        self.nodes[name] = self._start(command, f"node-{name}")

    def start_nodes(self, number: int) -> None:
        for name in range(number):
            self.start_node(name)

    def kill_node(self, name: int) -> None:
        """End a SuperNode and the client app that it runs, without warning."""
        self._kill(f"node-{name}", self.nodes.pop(name))

    def kill_superlink(self) -> None:
        """End the SuperLink and the server app that it runs, without warning."""
        assert self.superlink is not None
        self._kill("superlink", self.superlink)
        self.superlink = None

    def submit(self, app: Path, config: dict[str, object], *, nodes: int | None = None) -> str:
        """Submit a run, with a simulation's number of nodes; return its id."""
        command = ["run", str(app), CONNECTION, "--run-config", toml(config)]
        if nodes is not None:
            # Ray reserves this share of a core for each client; with a whole one, one client runs at a time.
            command += ["--federation-config", f"num-supernodes={nodes} client-resources-num-cpus=1"]
        said = self.flwr(*command)
        found = re.search(r"started run (\d+)", said)
        assert found, f"flwr run said: {said}"
        return found[1]

    def status(self, run: str) -> str:
        """Look up the status of a run; `flwr run` itself may exit with 0 though the run failed."""
        said = self.flwr("list", CONNECTION, "--run-id", run, "--format", "json")
        return str(json.loads(said)["runs"][0]["status"])

    def wait(self, run: str, seconds: float) -> str:
        """Wait until a run is over, and return its status."""
        wait_until(
            lambda: self.status(run).startswith("finished"), seconds, f"run {run}", self.folder, pause=4
        )
        return self.status(run)

    def flwr(self, *arguments: str) -> str:
        """Run Flower's command line; return what it printed."""
        command = [str(BIN / "flwr"), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def environment(self) -> dict[str, str]:
        # Flower starts its own commands by name.
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return os.environ | QUIET | {"FLWR_HOME": str(self.folder / "home"), "PATH": path}

    def close(self) -> None:
        """End every process that was started here."""
        for name in list(self.nodes):
            self.kill_node(name)
        if self.superlink is not None:
            self.kill_superlink()

    def family(self, name: str) -> list[psutil.Process]:
        """Find a process that was started here and all that descend from it, orphans included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(STARTED_AS) == self._mark(name):
                    found.append(process)
        return found

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=self.folder,
                env=self.environment() | {STARTED_AS: self._mark(name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _mark(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _kill(self, name: str, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        # What a process starts while it is being looked for is found the next time.
        while family := self.family(name):
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            psutil.wait_procs(family, timeout=10)

    def _answers(self) -> bool:
        verify = True if self.identity is None else ssl.create_default_context(cafile=self.identity.authority)
        try:
            return httpx.get(f"{self.url}/health", verify=verify, timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition, seconds: float, what: str, log: Path, *, pause: float = 0.2) -> None:
    """Look until a condition holds; name what was waited for, and where to read on, if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}; see {log}"
        time.sleep(pause)


def toml(values: dict[str, object]) -> str:
    """Write a run's configuration as Flower's command line takes it."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
