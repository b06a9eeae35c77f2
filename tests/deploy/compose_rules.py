"""What we ask of the compose file beyond its schema; each rule returns what is wrong."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from tests.deploy import secrecy
from tests.deploy.deploy_files import has_tag

Compose = Mapping[str, Any]

SECRETS_FOLDER = PurePosixPath("/run/secrets")
_ADDRESS = re.compile(r"(?:https?://|postgresql\+psycopg2://\w+@|--address=)([a-z][\w-]*):(\d+)")
_LISTENS = re.compile(r"^--?(?:[\w.]+-|s3\.)?port=(\d+)$")
_PORT_OF_IMAGE = {"postgres": 5432}


def problems(compose: Compose) -> list[str]:
    """Everything that is wrong, one line each."""
    rules = (_privileges, _health, _images, _ports, _secrecy, _secrets, _order, _volumes, _tokens)
    of_services = (
        rule(name, service, compose)
        for name, service in compose["services"].items()
        for rule in rules
    )
    return [*chain.from_iterable(of_services), *_addresses(compose), *_unused_secrets(compose)]


def secrets_of(service: Mapping[str, Any]) -> dict[str, str]:
    """The secrets of a service: source -> path in the container."""
    mounted = {}
    for secret in service.get("secrets", ()):
        entry = {"source": secret} if isinstance(secret, str) else secret
        source = entry["source"]
        mounted[source] = str(SECRETS_FOLDER / entry.get("target", source))
    return mounted


def _privileges(name: str, service: Mapping[str, Any], _: Compose) -> Iterator[str]:
    if not re.match(r"\$\{GAN_UID:\?[^}]+\}:\$\{GAN_GID:\?[^}]+\}$", str(service.get("user"))):
        yield f"{name}: must run as the owner of the secrets, got user {service.get('user')}"
    if service.get("privileged") or service.get("cap_add"):
        yield f"{name}: must not gain capabilities"
    if service.get("cap_drop") != ["ALL"]:
        yield f"{name}: must drop all capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield f"{name}: must not be able to gain privileges"


def _health(name: str, service: Mapping[str, Any], _: Compose) -> Iterator[str]:
    check = service.get("healthcheck", {})
    is_one_shot = str(service.get("restart")).startswith("on-failure")
    if not check.get("test") and not (is_one_shot and check.get("disable")):
        yield f"{name}: has no health check"


def _images(name: str, service: Mapping[str, Any], _: Compose) -> Iterator[str]:
    if not has_tag(service.get("image", "")):
        yield f"{name}: image {service.get('image')} has no tag"


def _ports(name: str, service: Mapping[str, Any], _: Compose) -> Iterator[str]:
    for port in service.get("ports", ()):
        if not str(port).startswith("127.0.0.1:"):
            yield f"{name}: port {port} must be published on 127.0.0.1 alone"
        elif int(port.rpartition(":")[2]) not in listens(service):
            yield f"{name}: port {port} is published, but its command does not listen there"


def _secrecy(name: str, service: Mapping[str, Any], _: Compose) -> Iterator[str]:
    build = service.get("build", {})
    yield from secrecy.of_environment(name, service.get("environment", {}))
    yield from secrecy.of_environment(f"{name}, build", build.get("args", {}))
    test = service.get("healthcheck", {}).get("test", ())
    for word in (*service.get("command", ()), *test):
        yield from secrecy.of_text(f"{name}: {word}", word)


def _secrets(name: str, service: Mapping[str, Any], compose: Compose) -> Iterator[str]:
    mounted = secrets_of(service)
    for source in sorted(mounted.keys() - compose["secrets"].keys()):
        yield f"{name}: secret {source} is not defined"
    texts = (*service.get("environment", {}).values(), *service.get("command", ()))
    used = set(re.findall(r"/run/secrets/[\w.-]+", " ".join(map(str, texts))))
    for path in sorted(used - set(mounted.values())):
        yield f"{name}: {path} is used, but no secret is mounted there"
    # One that is mounted elsewhere lies where a program looks for it by itself.
    for path in sorted(set(mounted.values()) - used):
        if PurePosixPath(path).parent == SECRETS_FOLDER:
            yield f"{name}: secret {path} is mounted, but not used"


def _order(name: str, service: Mapping[str, Any], compose: Compose) -> Iterator[str]:
    needed = service.get("depends_on", {})
    if not isinstance(needed, Mapping):
        yield f"{name}: depends_on must state conditions"
        return
    for other, how in needed.items():
        if other not in compose["services"]:
            yield f"{name}: depends on {other}, which is no service"
            continue
        ends = str(compose["services"][other].get("restart")).startswith("on-failure")
        wanted = "service_completed_successfully" if ends else "service_healthy"
        if how.get("condition") != wanted:
            yield f"{name}: must wait until {other} is {wanted}"


def _volumes(name: str, service: Mapping[str, Any], compose: Compose) -> Iterator[str]:
    for volume in service.get("volumes", ()):
        source = str(volume).partition(":")[0]
        if source not in compose.get("volumes", {}):
            yield f"{name}: volume {source} is not a named one"


def _tokens(name: str, service: Mapping[str, Any], _: Compose) -> Iterator[str]:
    if list(service.get("command", ()))[:2] != ["ray", "start"]:
        return
    environment = service.get("environment", {})
    if environment.get("RAY_AUTH_MODE") != "token" or "RAY_AUTH_TOKEN_PATH" not in environment:
        yield f"{name}: Ray must ask for a token"
    if "shm_size" not in service:
        yield f"{name}: Ray's object store needs a /dev/shm"


def listens(service: Mapping[str, Any]) -> set[int]:
    """Ports that a service's command opens on its network."""
    words = map(str, service.get("command", ()))
    ports = {int(match[1]) for match in map(_LISTENS.match, words) if match}
    image = str(service.get("image", "")).partition(":")[0]
    return ports | ({_PORT_OF_IMAGE[image]} if image in _PORT_OF_IMAGE else set())


def _addresses(compose: Compose) -> Iterator[str]:
    """Each address in a service's settings is that of a service that it can reach."""
    services = compose["services"]
    for name, service in services.items():
        texts = (*service.get("environment", {}).values(), *service.get("command", ()))
        for host, port in _ADDRESS.findall(" ".join(map(str, texts))):
            other = services.get(host)
            if other is None or not set(service["networks"]) & set(other["networks"]):
                yield f"{name}: {host} is no service that it reaches"
            elif int(port) not in listens(other):
                yield f"{name}: {host} does not listen on {port}"


def _unused_secrets(compose: Compose) -> Iterator[str]:
    used = {source for service in compose["services"].values() for source in secrets_of(service)}
    for source in sorted(compose["secrets"].keys() - used):
        yield f"secret {source} is used by no service"
