"""From a name or a file to a configuration (contract)."""

from pathlib import Path

import pytest

from gan.errors import ConfigError
from pipeline.settings import DEFAULT_PRESET, presets, resolve


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Write a file of settings into the working folder; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write


def problems(source, *assignments):
    with pytest.raises(ConfigError, match=r"\S") as caught:
        resolve(source, assignments)
    return caught.value.problems


def test_default_preset_is_there():
    assert DEFAULT_PRESET in presets()


def test_assignment_wins_over_file_and_file_over_default(settings):
    name = settings("base: {train: {n_steps: 7, batch_size: 5}}")
    train = resolve(name, ["train.n_steps=8"]).base.train
    assert (train.n_steps, train.batch_size, train.d_steps) == (8, 5, 1)


def test_path_of_images_is_absolute_for_workers_with_another_folder(settings, tmp_path):
    name = settings("base: {data: {dataset: a.npz, test_path: ../b.npz}}")
    data = resolve(name).base.data
    assert Path(data.dataset) == tmp_path / "a.npz"
    assert Path(data.test_path).is_absolute()


def test_home_in_a_path_is_the_users(settings, home):
    assert resolve(settings("base: {data: {dataset: ~/a.npz}}")).base.data.dataset == str(
        home / "a.npz"
    )


def test_root_is_absolute_beside_a_name_that_stays(settings, tmp_path):
    name = settings("base: {data: {dataset: cifar10, root: images}}")
    data = resolve(name).base.data
    assert (data.dataset, data.root) == ("cifar10", str(tmp_path / "images"))
    there = resolve(name, ["data.root=~/images"], is_here=False).base.data
    assert there.root == "~/images"


def test_mnist_is_a_name_and_no_path(settings):
    data = resolve(settings("name: mine")).base.data
    assert (data.dataset, data.test_path) == ("mnist", None)


def test_file_takes_numbers_without_a_point_as_yaml_1_2_does(settings):
    name = settings("sweep: {space: {train.learning_rate: {loguniform: [1e-4, 1e-2]}}}")
    assert resolve(name).sweep.space["train.learning_rate"]["loguniform"] == [1e-4, 1e-2]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("qick", "there is no preset qick; did you mean quick?"),
        ("zzz", "there is no preset zzz; there are "),
        ("zzz.yaml", "zzz.yaml: No such file or directory"),
        ("folder/zzz", "folder/zzz: No such file or directory"),
        ("./", "./: Is a directory"),
    ],
)
def test_source_that_is_not_there_is_named(settings, source, problem):
    (found,) = problems(source)
    assert found.startswith(problem)


def test_file_without_the_suffix_gets_a_hint(settings):
    (found,) = problems(settings("name: a", name="mine.txt"))
    assert found.startswith("there is no preset mine.txt; a file of settings ends in .yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("base: {\n", "mine.yaml is not YAML: line 2, column 1: expected "),
        ("name: 2014-13-32", "mine.yaml is not YAML: month must be in 1..12"),
        ("\x07", "mine.yaml is not YAML: unacceptable character"),
        ("- a\n", "mine.yaml must hold settings by name, got list"),
        ("a", "mine.yaml must hold settings by name, got str"),
        ("# nothing but a comment\n", "mine.yaml must hold settings by name, got none"),
        ("{}", "mine.yaml must hold settings by name, got none"),
    ],
)
def test_file_that_holds_no_settings_is_one_line(settings, text, problem):
    (found,) = problems(settings(text))
    assert found.startswith(problem)
    assert "\n" not in found


def test_file_that_is_no_text_is_one_line(settings, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    assert problems("mine.yaml") == ("mine.yaml is not YAML: it is no text",)


def test_all_problems_of_a_file_are_told_at_once(settings):
    found = problems(settings("base: {train: {n_step: 1, d_steps: 0}}"), "sweep.n_trials=0")
    assert {problem.split(":")[0] for problem in found} == {
        "base.train.n_step",
        "base.train.d_steps",
        "sweep.n_trials",
    }
