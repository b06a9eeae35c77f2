"""What must not stand in a file that others read: a password, a key, a token."""

import re
from collections.abc import Mapping

SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|(^|_)KEY(_|$)")
FILE_NAME = re.compile(r"_(FILE|PATH)$")
LOGIN_IN_URL = re.compile(r"//[^/@\s:]*:[^/@\s]+@")
SECRET_OPTION = re.compile(
    r"(?:^|\s)--?[\w.-]*(?:password|passwd|secret-key|token|access-key)\b[ =]", re.IGNORECASE
)
DEFAULT_SECRET = re.compile(r"\$\{\w*(?:PASSWORD|SECRET|TOKEN|KEY)\w*:?-")


def of_environment(where: str, environment: Mapping[str, object]) -> list[str]:
    """What is wrong with the variables of a container."""
    problems = []
    for name, value in environment.items():
        is_file = str(value).startswith("/") and (
            FILE_NAME.search(name) or name == "AWS_SHARED_CREDENTIALS_FILE"
        )
        if SECRET_NAME.search(name) and not is_file:
            problems.append(f"{where}: {name} must name a file, got a value")
        problems += of_text(f"{where}: {name}", str(value))
    return problems


def of_text(where: str, text: str) -> list[str]:
    """What is wrong with a command line or a value."""
    problems = []
    if LOGIN_IN_URL.search(text):
        problems.append(f"{where}: a password in an address")
    if SECRET_OPTION.search(text):
        problems.append(f"{where}: a secret as an option")
    if DEFAULT_SECRET.search(text):
        problems.append(f"{where}: a secret with a default")
    return problems
