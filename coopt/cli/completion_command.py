"""``coopt completion``: what bash, zsh or fish needs to complete commands, options and choices.

The scripts are written from argparse's own tree, so that they know whatever the parser knows. Where a value
is no choice, shells complete the names of files.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass

from coopt.cli import outputs

HOW = """\
  bash   coopt completion bash > ~/.local/share/bash-completion/completions/coopt
  zsh    coopt completion zsh > "${fpath[1]}/_coopt"
  fish   coopt completion fish > ~/.config/fish/completions/coopt.fish
"""


@dataclass(frozen=True)
class Option:
    """One option or one command.

    Attributes
    ----------
    words : tuple of str
        How it is written: "--json", or "plan".
    about : str
        What it does, in one line.
    takes : bool
        Whether a value follows.
    choices : tuple of str
        The values that there are; empty where any may follow.
    """

    words: tuple[str, ...]
    about: str
    takes: bool = False
    choices: tuple[str, ...] = ()


Tree = dict[str, tuple[Option, list[Option]]]


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "completion",
        run,
        about="a script that lets bash, zsh or fish complete coopt's commands",
        description="Print a script for a shell; where to put it:",
        epilog=HOW,
    )
    parser.add_argument("shell", choices=tuple(SHELLS))


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from coopt.cli import parser

    print(SHELLS[options.shell](tree(parser())), end="")
    return outputs.FOUND


def tree(parser: argparse.ArgumentParser) -> Tree:
    """The commands of a parser, each with its options and its arguments that are choices."""
    found: Tree = {}
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        about = {each.dest: each.help or "" for each in action._choices_actions}
        for name, command in action.choices.items():
            options = [_option(each, command) for each in command._actions]
            found[name] = Option((name,), _line(about.get(name, ""))), options
    return found


def _option(action: argparse.Action, command: argparse.ArgumentParser) -> Option:
    about = (action.help or "") % {"default": action.default, "prog": command.prog}
    choices = tuple(map(str, action.choices or ()))
    return Option(tuple(action.option_strings), _line(about), action.nargs != 0, choices)


def _line(text: str) -> str:
    """One line without the characters that quotes and brackets of a shell stumble on."""
    return re.sub(r"""["'`$\\:\[\]]""", "", " ".join(text.split()))


def _reply(words: str) -> str:
    return f"COMPREPLY=($(compgen -W '{words}' -- \"$current\"))"


def _bash(commands: Tree) -> str:
    cases = []
    for name, (_, options) in commands.items():
        words = [word for option in options for word in option.words]
        free = [choice for option in options if not option.words for choice in option.choices]
        values = [
            f"        {'|'.join(option.words)}) {_reply(' '.join(option.choices))}; return ;;"
            for option in options
            if option.words and option.choices
        ]
        taking = [word for option in options if option.takes and not option.choices for word in option.words]
        cases.append(
            "\n".join(
                [
                    f"    {name})",
                    '      case "$before" in',
                    *values,
                    *([f"        {'|'.join(taking)}) return ;;"] if taking else []),
                    "      esac",
                    f"      words='{' '.join([*words, *free])}' ;;",
                ]
            )
        )
    body = "\n".join(cases)
    return f"""\
# bash completion for coopt; written by `coopt completion bash`.
_coopt() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    {_reply(f"{' '.join(commands)} --help --version")}
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{body}
  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    *) COMPREPLY=($(compgen -W "$(printf '%s\\n' $words | grep -v '^-')" -- "$current")) ;;
  esac
}}
complete -o bashdefault -o default -F _coopt coopt
"""


def _zsh(commands: Tree) -> str:
    listed = "\n".join(f"    '{name}:{about.about}'" for name, (about, _) in commands.items())
    cases = []
    for name, (_, options) in commands.items():
        specs = []
        for option in options:
            value = f"({' '.join(option.choices)})" if option.choices else "_files"
            if not option.words:
                specs.append(f"      '*:{option.about}:{value}'")
                continue
            after = f":value:{value}" if option.takes else ""
            specs += [f"      '{word}[{option.about}]{after}'" for word in option.words]
        inner = " \\\n".join(specs)
        cases.append(f"    {name}) _arguments \\\n{inner} ;;")
    body = "\n".join(cases)
    return f"""\
#compdef coopt
# zsh completion for coopt; written by `coopt completion zsh`.
_coopt() {{
  local -a commands=(
{listed}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{body}
  esac
}}
compdef _coopt coopt
"""


def _fish(commands: Tree) -> str:
    lines = ["# fish completion for coopt; written by `coopt completion fish`."]
    for name, (command, options) in commands.items():
        lines.append(f"complete -c coopt -n __fish_use_subcommand -f -a {name} -d '{command.about}'")
        here = f"complete -c coopt -n '__fish_seen_subcommand_from {name}'"
        for option in options:
            choices = f" -a '{' '.join(option.choices)}'" if option.choices else ""
            if not option.words:
                lines += [f"{here} -f{choices} -d '{option.about}'"] if choices else []
                continue
            value = " -x" if choices else " -r -F" if option.takes else ""
            names = "".join(
                f" -l {word[2:]}" if word.startswith("--") else f" -s {word[1:]}" for word in option.words
            )
            lines.append(f"{here}{names}{value}{choices} -d '{option.about}'")
    return "\n".join(lines) + "\n"


SHELLS: dict[str, Callable[[Tree], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
