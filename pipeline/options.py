"""Arguments and options that many of the commands have, by their Python types."""

from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Argument(help="Name of a preset (quick, mnist, or an extension's), or a YAML file."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one setting; may be given several times."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="End stdout with one line of JSON.")]
