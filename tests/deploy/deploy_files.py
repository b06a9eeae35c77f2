"""Where the files for deploying are, and what is in them."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKER, KUBERAY, RAY = DEPLOY / "docker", DEPLOY / "kuberay", DEPLOY / "ray"
COMPOSE = DOCKER / "compose.yaml"
PAGES = sorted(DEPLOY.glob("*/README.md"))
YAMLS = sorted(DEPLOY.rglob("*.yaml"))
DOCKERFILES = sorted(DEPLOY.rglob("*.Dockerfile"))
TEXTS = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.is_file() and not {"secrets", "wheels", "__pycache__"} & set(path.parts)
)

GENERATED = ("deploy/docker/secrets", "deploy/docker/.env", "deploy/ray/wheels")
"""What using the files leaves beside them, and Git ignores."""


def load(path: Path) -> dict[str, Any]:
    """Content of a YAML file."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def has_tag(image: str) -> bool:
    """Whether an image is named with a tag or a digest."""
    return ":" in image.rpartition("/")[2] or "@sha256:" in image
