"""The benchmark of errors by labels, on small images.  Kinds: contract, invariance."""

import json

import numpy as np
import pytest

from gan.config import RunConfig, to_dict, with_overrides
from tests.benchmarks import bench_semi_supervised as bench
from tests.gan.small import EXTENSIONS, SETTINGS, labelled_images


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    section = EXTENSIONS["semi_supervised"]["semi_supervised"] | {"supervised_steps": 7}
    adam = {"train.optimizer": "adam", "train.adam_epsilon": 1e-4, "train.average_decay": 0.5}
    settings = SETTINGS | {"semi_supervised": section} | adam
    preset = tmp_path / "preset.yaml"
    preset.write_text(json.dumps({"base": to_dict(with_overrides(RunConfig(), settings))}))
    monkeypatch.setattr(bench, "PRESET", preset)
    monkeypatch.setattr(bench, "CANDIDATES", [{}, {"semi_supervised.init_from_data": False}])
    monkeypatch.setattr(bench, "CHOICE_LANES", [(6, 1_000), (6, 1_001)])
    monkeypatch.setattr(bench, "CHECK_STEPS", 6)
    monkeypatch.setattr(bench, "TIMED_STEPS", 2)
    splits = labelled_images(60), labelled_images(20, seed=1)
    monkeypatch.setattr(bench, "load_train_valid", lambda data: splits)
    monkeypatch.setattr(bench, "load_test", lambda data: labelled_images(40, seed=2))


ARGUMENTS = ["--labels", "6,12", "--seeds", "3", "--steps", "30"]


def run(tmp_path, *more):
    path = tmp_path / "results.json"
    bench.main([*ARGUMENTS, "--output", str(path), *more])
    return json.loads(path.read_text())


def test_every_seed_of_every_number_of_labels_has_its_errors(tmp_path, capsys):
    facts = run(tmp_path)
    assert facts["lanes"] == [[6, 0], [6, 1], [6, 2], [12, 0], [12, 1], [12, 2]]
    for method, n_steps in (("supervised", 7), ("feature_matching", 30)):
        found = facts["methods"][method]
        assert found["n_steps"] == found["history"][-1]["step"] == n_steps
        assert len(found["test_errors"]) == 6
        assert all(0 <= wrong <= 40 for wrong in found["test_errors"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 6 | f")]
    own = facts["methods"]["feature_matching"]["test_errors"][:3]
    mean, spread = np.mean(own), np.std(own, ddof=1)
    assert rows[-1].startswith(f"| 6 | feature_matching | {mean:.1f} ± {spread:.1f} |")
    assert rows[-1].endswith(f"| {', '.join(map(str, own))} |")


def test_steps_are_fitted_to_the_time_and_the_last_has_the_smallest_step_size(tmp_path):
    facts = run(tmp_path, "--budget-seconds", "0.001")
    assert facts["methods"]["feature_matching"]["n_steps"] == 8  # four times those that were timed
    facts = run(tmp_path, "--budget-seconds", "1000")
    assert facts["methods"]["feature_matching"]["n_steps"] == 30


def test_settings_are_tried_on_other_seeds_by_validation_errors_alone(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(bench, "load_test", opened.append)
    facts = run(tmp_path, "--choose-seconds", "0.1", "--without-test", "--check")
    assert opened == []
    means = [np.mean(tried["valid"]) for tried in facts["tried"]]
    assert facts["chosen"] == bench.CANDIDATES[int(np.argmin(means))]
    assert not {seed for _, seed in facts["lanes"]} & {seed for _, seed in bench.CHOICE_LANES}


def test_settings_that_were_chosen_before_are_taken_again(tmp_path):
    before = tmp_path / "before.json"
    before.write_text(json.dumps({"chosen": {"train.learning_rate": 0.25}}))
    facts = run(tmp_path, "--chosen-from", str(before), "--without-test")
    assert facts["chosen"] == {"train.learning_rate": 0.25}
    assert facts["config"]["train"]["learning_rate"] == 0.25


def test_a_change_of_settings_reaches_the_runs(tmp_path):
    facts = run(tmp_path, "--set", "semi_supervised.noise_input=0.1", "train.learning_rate=0.5")
    assert facts["config"]["semi_supervised"]["noise_input"] == 0.1
    assert facts["config"]["train"]["learning_rate"] == 0.5
