"""Completion scripts know what the parser knows, in each shell that is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import run
from coopt.cli import COMMANDS, parser
from coopt.cli.completion_command import SHELLS, tree

NAMES = [command.__name__.rpartition(".")[2].removesuffix("_command") for command in COMMANDS]


def test_the_tree_is_the_parser_s() -> None:
    commands = tree(parser())
    assert list(commands) == NAMES
    _, options = commands["frontier"]
    (vary,) = (option for option in options if "--vary" in option.words)
    assert vary.takes and vary.choices == ("cost", "time", "target_error") and "%" not in vary.about
    _, (flag, shell) = commands["completion"]
    assert flag.words == ("-h", "--help") and not flag.takes
    assert shell.choices == tuple(SHELLS)


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert run("completion", shell) == 0
    path = folder / f"coopt.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["coopt", "pl"], {"plan"}),
        (["coopt", ""], {*NAMES, "--help", "--version"}),
        (["coopt", "frontier", "--vary", ""], {"cost", "time", "target_error"}),
        (["coopt", "frontier", "--va"], {"--vary", "--values"}),
        (["coopt", "completion", "f"], {"fish"}),
        (["coopt", "plan", "--json", ""], set()),
    ],
)
def test_bash(words, expected, tmp_path, capsys) -> None:
    path = script("bash", tmp_path, capsys)
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {path}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _coopt; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert set(output("bash", "-c", code).split()) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("coopt pl", {"plan"}),
        ("coopt frontier --vary ", {"cost", "time", "target_error"}),
        ("coopt frontier --va", {"--vary", "--values"}),
        ("coopt completion f", {"fish"}),
    ],
)
def test_fish(line, expected, tmp_path, capsys) -> None:
    path = script("fish", tmp_path, capsys)
    found = output("fish", "--no-config", "-c", f"source {path}; complete -C '{line}'")
    assert {each.partition("\t")[0] for each in found.splitlines()} == expected


def test_zsh_reads_the_script(tmp_path, capsys) -> None:
    path = script("zsh", tmp_path, capsys)
    # Without a terminal zsh completes nothing: what it would be asked is shown by a stand-in.
    code = (
        "_arguments() { print -l -- $@ }; compdef() { print registered $@ }; "
        f"source {path}; words=(coopt frontier --vary); CURRENT=3; _coopt"
    )
    found = output("zsh", "-f", "-c", code)
    assert "registered _coopt coopt" in found
    assert "--vary[the limit (default cost)]:value:(cost time target_error)" in found
