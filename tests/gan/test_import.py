"""Importing does nothing.  Kind: algorithm."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

IMPORT_ALL = """
import importlib, logging, pkgutil, sys
import gan
modules = [module.name for module in pkgutil.walk_packages(gan.__path__, "gan.")]
for name in modules:
    importlib.import_module(name)
assert len(modules) >= 20, modules
assert "gan.algorithm1" in sys.modules
roots = {name.split(".")[0] for name in sys.modules}
assert not roots & {"ray", "mlflow", "tuning", "pipeline"}, roots
loggers = [logging.getLogger(n) for n in logging.root.manager.loggerDict if n.startswith("gan")]
assert not any(logger.handlers or logger.level for logger in loggers)
assert not logging.root.handlers
"""


def test_import_in_an_empty_read_only_folder_leaves_nothing_and_sets_nothing_up(tmp_path):
    folder, home = tmp_path / "cwd", tmp_path / "home"
    folder.mkdir(mode=0o555)
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(folder.iterdir()) == []
    assert list(home.rglob("*")) == []
