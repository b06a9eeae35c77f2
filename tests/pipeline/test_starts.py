"""What an extension starts from, pinned.  Kinds: contract, bad input."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from gan.config import PromoteConfig, digest, load_config
from gan.errors import ConfigError
from gan.files import sha256
from gan.tasks import TASKS
from pipeline.artifacts import MANIFEST, verify
from pipeline.extensions import require_images
from pipeline.starts import data_of_start, pin, resumed
from tests.pipeline.tiny_artifacts import write_tiny
from tuning.ledger import START, Ledger, identity, open_ledger


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Of an extension that starts from a generator; the working folder has that of one."""

    def adopt(config, origin):
        return dataclasses.replace(config, prior=origin.prior, generator=origin.generator)

    needy = dataclasses.replace(TASKS["conditional"], origin=lambda c: "generator", adopt=adopt)
    monkeypatch.setitem(TASKS, "conditional", needy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    write_tiny(tmp_path / "generator")
    return dataclasses.replace(
        load_config({"base": {"conditional": {}}}), promote=PromoteConfig(model="tiny-conditional")
    )


def starting_from(config, start):
    return dataclasses.replace(config, base=dataclasses.replace(config.base, start=start))


def test_a_folder_is_laid_down_by_its_digest_and_its_settings_are_taken_over(config, tmp_path):
    pinned = pin(starting_from(config, "generator"))
    folder = Path(pinned.base.start)
    assert folder == tmp_path / "runs/.starts" / sha256(tmp_path / "generator" / MANIFEST)
    assert verify(folder) == verify(tmp_path / "generator")
    trained = json.loads((tmp_path / "generator/config.json").read_text())["run"]
    assert pinned.base.prior.dim == trained["prior"]["dim"]
    assert list(pinned.base.generator.hidden) == trained["generator"]["hidden"]
    assert data_of_start(pinned) == verify(folder).lineage.data_digest


def test_what_is_pinned_stays_pinned(config):
    pinned = pin(starting_from(config, "generator"))
    assert pin(pinned) == pinned


def test_a_sweep_goes_on_from_the_same_model_in_another_folder(config, tmp_path, monkeypatch):
    """With the working folder moved, and with nothing but what the storage has of the sweep."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pinned = pin(starting_from(config, "generator"))
    moved, stored = Ledger(tmp_path / "sweep"), open_ledger(f"file://{tmp_path}/original/sweep")
    for ledger in (moved, stored):
        ledger.open(pinned)
        ledger.provide(START, Path(pinned.base.start))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    for name, ledger in ("moved", moved), ("empty", stored):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "moved":
            shutil.copytree(tmp_path / "elsewhere", "runs")
        again = pin(resumed(ledger))
        assert Path(again.base.start).parent == tmp_path / name / "runs" / ".starts"
        assert verify(Path(again.base.start)) == verify(tmp_path / "generator")
        assert digest(identity(again)) == digest(identity(pinned))


def test_the_generator_of_the_same_run_counts_where_none_is_named(config, tmp_path):
    pinned = pin(config, promoted=tmp_path / "generator")
    assert pinned == pin(starting_from(config, "generator"))


@pytest.mark.mlflow
def test_without_a_model_it_is_told_which_was_looked_for(config):
    with pytest.raises(
        ConfigError, match=r"start: there is no model tiny-generator to start from"
    ):
        pin(config)
    assert not Path("runs").exists()
    assert not Path("mlflow.db").exists()


def test_an_altered_model_is_refused(config, tmp_path):
    (tmp_path / "generator/config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"start: artifact generator was altered: config\.json"):
        pin(starting_from(config, "generator"))


def test_a_model_of_another_task_is_refused(config, monkeypatch):
    monkeypatch.setitem(
        TASKS,
        "conditional",
        dataclasses.replace(TASKS["conditional"], origin=lambda c: "conditional"),
    )
    with pytest.raises(ConfigError, match="from a promoted conditional, got one of the task gen"):
        pin(starting_from(config, "generator"))


def test_a_model_of_other_images_is_refused_and_nothing_is_written(config):
    with pytest.raises(ConfigError, match="start: the model was trained on other images than mni"):
        pin(starting_from(config, "generator"), accept=require_images)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("fixed", "stacked starts from a model of generator, others from nothing"),
        ("stacked", "fixed starts from nothing, others from a model of generator"),
    ],
)
def test_trials_that_would_start_from_different_tasks_are_refused(base, message):
    space = {"learned_prior.method": {"choice": ["fixed", "stacked"]}}
    section = {"learned_prior": {"method": base}}
    config = load_config({"base": section, "sweep": {"space": space}})
    with pytest.raises(ConfigError, match=f"sweep.space: learned_prior.method: {message}"):
        pin(config)


def test_trials_that_differ_in_what_the_model_decides_are_refused(config):
    space = {"prior.dim": {"choice": [4, 9]}}
    varied = dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, space=space))
    with pytest.raises(ConfigError, match=r"prior\.dim: the model that trials start from has"):
        pin(starting_from(varied, "generator"))


def test_a_start_for_a_task_that_starts_from_nothing_is_refused():
    config = starting_from(load_config({}), "mnist-generator")
    with pytest.raises(ConfigError, match="start: generator starts from nothing here, got mnist-"):
        pin(config)
