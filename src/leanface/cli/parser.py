"""The parser that all commands share: commands in groups, suggestions for typos, an example in each command's help."""

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from leanface.extras import installed_version

Handler = Callable[[argparse.Namespace], None]

USE = "use the network"
DEPLOY = "deploy it"
EXPERIMENT = "compress networks"
MAINTAIN = "maintain"

GROUPS = (USE, DEPLOY, EXPERIMENT, MAINTAIN)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that answers a typo with the word that was probably meant."""

    groups: dict[str, list[tuple[str, str]]]
    """Group to (command, help), of a parser that has commands."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """Take what ArgumentParser takes."""
        keywords.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **keywords)
        self.groups = {}
        self.command_action: argparse.Action | None = None
        self.commands: dict[str, Parser] = {}

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse, and name the option that an unknown one was probably meant to be."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = self.commands.get(getattr(parsed, "command", ""), self)
            known = (option for action in parser._actions for option in action.option_strings)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(unknown[0], known)}")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            raise argparse.ArgumentError(action, error.message + did_you_mean(value, action.choices or ())) from None

    def format_help(self) -> str:
        """Return the help, with the commands in groups."""
        if self.command_action is not None:
            self.command_action.help = argparse.SUPPRESS  # not before: it hides the commands from completion too
        text = super().format_help()
        width = max((len(name) for entries in self.groups.values() for name, _ in entries), default=0)
        for group in GROUPS:
            if entries := self.groups.get(group):
                text += "".join([f"\n{group}:\n", *(f"  {name:<{width}}  {line}\n" for name, line in entries)])
        return text


class Commands:
    """The top-level commands of a parser."""

    def __init__(self, parser: Parser) -> None:
        """Make room for commands in `parser`."""
        self._parser = parser
        self._commands = parser.command_action = parser.add_subparsers(
            prog="leanface", required=True, metavar="COMMAND", dest="command", parser_class=Parser
        )

    def add(
        self, name: str, group: str, help: str, example: str, run: Handler | None = None, **keywords: Any
    ) -> Parser:
        """Add a command.

        Args:
            name: as it is typed.
            group: one of `GROUPS`.
            help: one line, for the list of commands and for the command's own help.
            example: command lines that work as they stand, shown below the command's help.
            run: what runs it; None for a command that has forms of its own.
        """
        assert group in GROUPS
        indented = "\n".join(f"  {line}" for line in example.splitlines())
        command = self._commands.add_parser(
            name, help=help, description=_sentence(help), epilog=f"example:\n{indented}", **keywords
        )
        if run is not None:
            command.set_defaults(run=run)
        self._parser.groups.setdefault(group, []).append((name, help))
        self._parser.commands[name] = command
        return command


def command_parser() -> tuple[Parser, Commands]:
    """Make the top parser and the place where its commands go."""
    parser = Parser(
        prog="leanface",
        description="Compress a network that reads 3D faces, prove that it still reads the same face, and use it.",
        usage="leanface [-h] [--version] COMMAND ...",
        epilog="`leanface COMMAND --help` explains a command and shows an example.",
    )
    version = installed_version("leanface") or "(its sources, not installed)"
    parser.add_argument("--version", action="version", version=f"leanface {version}")
    return parser, Commands(parser)


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return a suggestion to append to an error, or nothing if no known word is like this one."""
    close = difflib.get_close_matches(str(word).partition("=")[0], [str(one) for one in known], 1)
    return f"; did you mean {close[0]}?" if close else ""


def count(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def name(text: str) -> str:
    """Read the name of a file or folder; an empty one, as of an unset variable, would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got an empty one; the current folder is called '.'")
    return text


def port(text: str) -> int:
    """Read a TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected 1 to 65535, got {text!r}")
    return int(text)


def texture_size(text: str) -> int:
    """Read a texture's side in pixels, or 0 for none."""
    if not text.isdecimal() or not (int(text) == 0 or 64 <= int(text) <= 4096):
        raise argparse.ArgumentTypeError(f"expected 0, or 64 to 4096, got {text!r}")
    return int(text)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
