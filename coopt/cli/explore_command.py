"""The command ``coopt explore``: serve the what-if page on this machine alone, until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from coopt.cli import inputs, outputs
from coopt.errors import InvalidProblemError, MissingDependencyError

HOST, FIRST_PORT, PORTS = "127.0.0.1", 8501, 100
# Nothing is sent anywhere, nothing is asked, and nothing but the page is shown.
SETTINGS = {
    "server.address": HOST,
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "browser.serverAddress": HOST,
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "logger.hideWelcomeMessage": "true",
    "logger.level": "error",
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
}


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "explore",
        run,
        about="a page with sliders: what would more budget, or fewer devices, change?",
        description=(
            "Serve a page on this machine, with sliders for budget, deadline, learning rate, phases and "
            "devices, and the best plan for each of their positions. Ctrl-C ends it. Needs an extra: "
            'pip install "coopt[explore]"'
        ),
    )
    inputs.add_fleet(parser)
    inputs.add_job(parser)
    inputs.add_judge(parser)
    parser.add_argument(
        "--port", type=int, help=f"port on {HOST} (default: the first free one from {FIRST_PORT} on)"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address, open no browser")


def run(options: argparse.Namespace) -> int:
    """Check the files, then serve the page until it is interrupted.

    Raises
    ------
    MissingDependencyError
        If Streamlit is not installed.
    InvalidProblemError
        If a file is wrong, or the port is taken.
    """
    if find_spec("streamlit") is None:
        raise MissingDependencyError('the page needs Streamlit: pip install "coopt[explore]"')
    from coopt.cli.explore.open_case import open_case

    measurement = "" if options.measurement is None else str(options.measurement)
    files = (str(options.fleet), str(options.job), options.bound, measurement)
    open_case(*files)
    port = free_port(options.port)
    print(f"coopt: http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)
    settings = {
        **SETTINGS,
        "server.port": str(port),
        "server.headless": "true" if options.no_browser else "false",
    }
    page = Path(__file__).with_name("explore") / "page.py"
    command = [sys.executable, "-m", "streamlit", "run", str(page)]
    command += [f"--{name}={value}" for name, value in settings.items()]
    with subprocess.Popen([*command, "--", *files], stdout=subprocess.DEVNULL) as server:
        # A terminal interrupts both processes; who ends this one ends the server too.
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            return outputs.FAILED if server.wait() > 0 else outputs.FOUND
        except KeyboardInterrupt:
            server.wait()
            return outputs.FOUND


def free_port(wanted: int | None) -> int:
    """The port that was asked for, or the first that is free.

    Raises
    ------
    InvalidProblemError
        If it is no port, or is taken.
    """
    for port in range(FIRST_PORT, FIRST_PORT + PORTS) if wanted is None else (wanted,):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return port
    what = f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are" if wanted is None else f"port = {wanted}: is"
    raise InvalidProblemError(f"{what} taken or out of range: give a free one with --port, such as 8765")
