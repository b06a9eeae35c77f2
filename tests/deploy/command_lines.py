"""Commands that pages and files name, held to the programs' own parsers."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import click
from typer.exceptions import TyperException

from gan.errors import GanError
from pipeline.settings import presets, resolve
from tests.deploy.deploy_files import COMPOSE, DOCKER, KUBERAY, ROOT, load
from tests.deploy.dockerfiles import build_arguments, parse
from tests.deploy.names import mlflow_cli
from tests.deploy.ray_kinds import pods
from tests.pipeline.commands import parse as parse_gan

Words = list[str]

_BLOCK = re.compile(r"^( *)```bash\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_ANY_BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_REDIRECTIONS = {">", ">>", "<", "<<<"}
_SEPARATORS = {"&&", "||", "|", ";", "(", ")", "&"}
_ASSIGNMENT = re.compile(r"[A-Z_]+=")

# Programs of the machine, of which we check no option.
_PLAIN = (
    "base64",
    "cd",
    "chmod",
    "curl",
    "export",
    "install",
    "mkdir",
    "pip",
    "rm",
    "ssh",
    "umask",
)
_COMPOSE_COMMANDS = ("build", "down", "exec", "ps", "up")
_KUBECTL_COMMANDS = ("apply", "create", "delete", "get", "logs", "port-forward")


def commands_of(page: str) -> list[Words]:
    """Every command of a page: in its blocks of bash, or between backticks."""
    lines = [line for _, block in _BLOCK.findall(page) for line in block.splitlines()]
    inline = re.findall(r"`([^`]+)`", _ANY_BLOCK.sub("", page))
    programs = "|".join(map(re.escape, (*_PLAIN, *CHECKS)))
    # A program's name alone is its name, not a command.
    lines += [text for text in inline if re.match(rf"(?:[A-Z_]+=\S+ )*(?:{programs}) ", text)]
    return [command for line in lines for command in split(line)]


def split(line: str) -> list[Words]:
    """The commands in one line of a shell, without variables before and redirections behind."""
    lexer = shlex.shlex(" ".join(line.split()), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[Words] = [[]]
    words = iter(lexer)
    for word in words:
        if word in _SEPARATORS or set(word) <= set("();"):
            commands.append([])
        elif word in _REDIRECTIONS:
            next(words)
        elif commands[-1] or not _ASSIGNMENT.match(word):
            commands[-1].append(word)
    return [command for command in commands if command]


def problem(words: Words) -> str | None:
    """What is wrong with a command, or None."""
    program = words[0].rpartition("/")[2]
    if program in _PLAIN:
        return None
    if program not in CHECKS:
        return f"{words[0]} is no program that we know"
    try:
        return CHECKS[program](words[1:])
    except (click.UsageError, TyperException, GanError, KeyError, ValueError) as error:
        said = getattr(error, "message", None) or str(error)
        return f"{shlex.join(words)}: {said}"


def _gan(words: Words) -> str | None:
    name, *rest = words
    _, parameters = parse_gan(shlex.join(["gan", name, *rest]))
    if "assignments" in parameters and "source" in parameters:
        source = parameters["source"]
        if source not in presets():
            return f"{source} is no preset"
        resolve(source, parameters["assignments"] or ())
    return None


def _ray(words: Words) -> str | None:
    from ray.scripts.scripts import cli

    _parse_click(cli, "ray", words)
    if words[:2] == ["job", "submit"]:
        return problem(words[words.index("--") + 1 :])
    if words[0] in ("up", "down", "dashboard", "exec") and not (ROOT / words[1]).is_file():
        return f"ray {words[0]} {words[1]}: there is no such file"
    if words[0] == "exec":
        return next(filter(None, map(problem, split(words[2]))), None)
    return None


def _mlflow(words: Words) -> str | None:
    _parse_click(mlflow_cli(), "mlflow", words)
    return None


def _docker(words: Words) -> str | None:
    if words[0] == "compose":
        return _compose(words[1:])
    if words[0] == "push":
        used = {template["spec"]["containers"][0]["image"] for template in _kuberay_pods()}
        return None if words[1] in used else f"docker push {words[1]}: no pod has that image"
    if words[0] == "build":
        options = _options(words, "-f", "--build-arg")
        (file,) = options["-f"]
        arguments = build_arguments(parse((ROOT / file).read_text(encoding="utf-8")))
        given = {text.partition("=")[0] for text in options["--build-arg"]}
        unknown = sorted(given - arguments.keys())
        return f"{file} has no ARG {unknown[0]}" if unknown else None
    return f"docker {words[0]} is not what we know"


def _compose(words: Words) -> str | None:
    options = _options(words, "-f", "--scale")
    if options["-f"][:1] != ["deploy/docker/compose.yaml"]:
        return "docker compose without -f deploy/docker/compose.yaml"
    command = words[2 * len(options["-f"])]
    if command not in _COMPOSE_COMMANDS:
        return f"docker compose {command} is not what we know"
    named = [text.partition("=")[0] for text in options["--scale"]]
    inner: Words = []
    if command == "exec":
        service, *inner = words[words.index(command) + 1 :]
        named.append(service)
    unknown = [name for name in named if name not in load(COMPOSE)["services"]]
    if unknown:
        return f"{unknown[0]} is no service"
    return problem(inner) if inner else None


def _kubectl(words: Words) -> str | None:
    if words[0] not in _KUBECTL_COMMANDS:
        return f"kubectl {words[0]} is not what we know"
    missing = [name for name in _options(words, "-f")["-f"] if not (ROOT / name).is_file()]
    if missing:
        return f"kubectl {words[0]}: there is no {missing[0]}"
    cluster, job = (load(KUBERAY / f"{name}.yaml") for name in ("raycluster", "rayjob"))
    mounted = {
        volume["secret"]["secretName"]
        for template in _kuberay_pods()
        for volume in template["spec"].get("volumes", ())
    }
    cluster_name, job_name = cluster["metadata"]["name"], job["metadata"]["name"]
    known = {
        "raycluster": {cluster_name},
        "rayjob": {job_name},
        "job": {job_name},
        "service": {f"{cluster_name}-head-svc"},
        # The operator's own has the name of the cluster.
        "secret": {*mounted, cluster_name},
    }
    for kind, names in _resources(words[1:]):
        for name in names:
            if name not in known.get(kind, ()):
                return f"kubectl {words[0]}: {kind} {name} is none of ours"
    return None


def _resources(words: Words) -> Iterator[tuple[str, Words]]:
    """The kind and the names in `secret a b`, `secret generic a` and `job/a`, if there are any."""
    plain = [word for word in words if re.fullmatch(r"[a-z][a-z-]*(/[a-z-]+)?", word)]
    if plain:
        kind, _, name = plain[0].partition("/")
        yield kind, [name] if name else [word for word in plain[1:] if word != "generic"]


def _helm(words: Words) -> str | None:
    return None if words[0] in ("install", "repo") else f"helm {words[0]} is not what we know"


def _make_secrets(words: Words) -> str | None:
    return f"make-secrets takes nothing, got {words}" if words else None


def _python(words: Words) -> str | None:
    """The tracker's image has our script; `python -c` is compiled."""
    if words[0] == "-c":
        compile(words[1], "<health check>", "exec")
    elif words[0] == "/opt/tracker/prepare.py":
        known = re.findall(r'"(--[\w-]+)"', (DOCKER / "prepare.py").read_text())
        for word in words[1:]:
            if word.partition("=")[0] not in known:
                return f"prepare.py does not take {word}"
    else:
        return f"python {words[0]} is not what we know"
    return None


def _options(words: Words, *names: str) -> Mapping[str, Words]:
    return {name: [value for option, value in pairwise(words) if option == name] for name in names}


def _parse_click(command: Any, name: str, words: Words) -> None:
    """Let a program of click parse its words; nothing is run."""
    try:
        context = command.make_context(name, list(words))
    except click.exceptions.Exit:  # --help, --version
        return
    if isinstance(command, click.Group):
        # click keeps the inner command's name apart, in an attribute that it does not document.
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        inner_name, inner, inner_words = command.resolve_command(context, rest)
        _parse_click(inner, str(inner_name), list(inner_words))


def _kuberay_pods() -> list[Mapping[str, Any]]:
    return [
        template
        for file in sorted(KUBERAY.glob("*.yaml"))
        for template in pods(load(file)).values()
    ]


CHECKS: Mapping[str, Callable[[Words], str | None]] = {
    "gan": _gan,
    "ray": _ray,
    "mlflow": _mlflow,
    "docker": _docker,
    "kubectl": _kubectl,
    "helm": _helm,
    "python": _python,
    "deploy/docker/make-secrets": _make_secrets,
    "make-secrets": _make_secrets,
}
