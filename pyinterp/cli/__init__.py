"""The command line: ``pyinterp`` ``demo``, ``chain``, ``interactions``, ``knowledge``, ``head`` and ``info``."""

from __future__ import annotations

import typer

from pyinterp.cli.chain_command import chain, demo
from pyinterp.cli.head_command import head
from pyinterp.cli.info_command import info
from pyinterp.cli.interactions_command import interactions
from pyinterp.cli.knowledge_command import knowledge

app = typer.Typer(
    name="pyinterp",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="See what a trained vision network computes.",
    epilog="Exit codes: 0 done; 1 an error, told in one line; 2 options that do not parse; 3 a chain was found, but it "
    "misses its target; 130 interrupted: demo and chain save the best chain so far; interactions, knowledge and head "
    "keep what is computed so far, and the same command goes on from there.",
)
for command in (demo, chain, interactions, knowledge, head, info):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
