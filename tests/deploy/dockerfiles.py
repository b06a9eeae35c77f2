"""What we ask of a Dockerfile."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.deploy import secrecy
from tests.deploy.deploy_files import has_tag


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and the rest of it on one line."""

    name: str
    text: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [Instruction(name.upper(), " ".join(rest.split())) for name, _, rest in found]


def build_arguments(instructions: list[Instruction]) -> dict[str, str]:
    """What ARG declares, with the defaults."""
    texts = (i.text for i in instructions if i.name == "ARG")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def problems(text: str, *, root: Path) -> list[str]:
    """Everything that is wrong, one line each.

    Args:
        text: of the Dockerfile.
        root: of the build context, with its .dockerignore.
    """
    instructions = parse(text)
    return [
        *_bases(instructions),
        *_user(instructions),
        *_secrecy(instructions),
        *_sources(instructions, root),
    ]


def _bases(instructions: list[Instruction]) -> Iterator[str]:
    stages: set[str] = set()
    for instruction in instructions:
        if instruction.name == "FROM":
            image, _, stage = instruction.text.partition(" AS ")
            if image not in stages and not has_tag(image):
                yield f"base image {image} has no tag"
            stages.add(stage)


def _user(instructions: list[Instruction]) -> Iterator[str]:
    users = [i.text for i in instructions if i.name == "USER"]
    user = users[-1] if users else "root"
    for name, value in build_arguments(instructions).items():
        user = user.replace(f"${{{name}}}", value)
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        yield f"the last USER must be two numbers, neither 0, got {user}"


def _secrecy(instructions: list[Instruction]) -> Iterator[str]:
    for instruction in instructions:
        if instruction.name in ("ENV", "ARG"):
            names = re.findall(r"(\w+)=|^(\w+)", instruction.text)
            for name in filter(None, (first or second for first, second in names)):
                if secrecy.SECRET_NAME.search(name):
                    yield f"{instruction.name} {name} would stay in the image"
        yield from secrecy.of_text(instruction.name, instruction.text)


def _sources(instructions: list[Instruction], root: Path) -> Iterator[str]:
    allowed = [
        line[1:]
        for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    for instruction in instructions:
        if instruction.name == "ADD":
            yield "ADD fetches and unpacks: use COPY"
        if instruction.name != "COPY" or "--from=" in instruction.text:
            continue
        *sources, _ = [word for word in instruction.text.split() if not word.startswith("--")]
        for source in sources:
            if not (root / source).exists():
                yield f"COPY {source}: there is no such file"
            elif not any(source == name or source.startswith(f"{name}/") for name in allowed):
                yield f"COPY {source}: .dockerignore keeps it out"
