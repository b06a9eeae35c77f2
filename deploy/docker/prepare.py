"""Makes, once, what the services of compose.yaml expect: buckets, and the account of trials.

Run again, it makes what is missing, and sets the account's password to what the file says.
"""

import argparse
import configparser
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger("prepare")


def make_buckets(storage: Any, names: Sequence[str]) -> None:
    """Make the buckets that there are not yet.

    Args:
        storage: client of S3, as boto3 makes it.
        names: of the buckets.
    """
    existing = {bucket["Name"] for bucket in storage.list_buckets()["Buckets"]}
    for name in names:
        if name not in existing:
            storage.create_bucket(Bucket=name)
            logger.info("made bucket %s", name)


def make_account(tracker: Any, username: str, password: str) -> None:
    """Let a user that is no administrator in, by this password.

    Args:
        tracker: client of MLflow's basic authentication, logged in as an administrator.
        username: of the account.
        password: 12 characters or more.
    """
    from mlflow.exceptions import MlflowException

    try:
        tracker.get_user(username)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        tracker.create_user(username, password)
        logger.info("made account %s", username)
    else:
        tracker.update_user_password(username, password)


def read_account(file: Path) -> tuple[str, str]:
    """Name and password in a file of MLflow's form for ~/.mlflow/credentials."""
    content = configparser.ConfigParser(interpolation=None)
    content.read_string(file.read_text(encoding="utf-8"))
    section = content["mlflow"]
    return section["mlflow_tracking_username"], section["mlflow_tracking_password"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what the command line names, on the servers that the environment names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket", action="append", default=[], help="may be given several times")
    parser.add_argument("--account", type=Path, help="file as ~/.mlflow/credentials")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    import boto3
    from mlflow.server.auth.client import AuthServiceClient

    make_buckets(
        boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]), options.bucket
    )
    if options.account:
        tracker = AuthServiceClient(os.environ["MLFLOW_TRACKING_URI"])
        make_account(tracker, *read_account(options.account))


if __name__ == "__main__":
    main()
