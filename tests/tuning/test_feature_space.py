"""The Fréchet distance of a trial's samples.  Kinds: contract, independent reference."""

import pytest
import torch
from torch.testing import assert_close

import gan.validation
from gan.checkpoint import load_newest
from gan.config import run_config, to_dict
from gan.datasets.splits import load_train_valid
from gan.evaluation.frechet import frechet_distance
from gan.metric_names import FRECHET_DISTANCE_VALID, FRECHET_DISTANCE_VALID_SE
from gan.run import unit_pixels
from gan.tasks import from_state
from tests.tuning.tiny_sweeps import tiny_config, write_images
from tuning.ledger import Ledger, trial_run
from tuning.tracking import prepare_store
from tuning.trial import TrialSpec, run_trial

PROJECTION = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


class Projection:
    """A feature space of six random directions; counts how often it is asked."""

    name, digest, n_calls = "projection", "0" * 64, 0

    def __call__(self, images):
        self.n_calls += 1
        return images.flatten(1).float() @ PROJECTION


@pytest.fixture
def extractors(monkeypatch):
    """The extractors that trials were given, with the folders that these were asked for in."""
    made = []

    def build_extractor(cfg, data, train, *, folder, device):
        made.append((Projection(), folder))
        return made[-1][0]

    monkeypatch.setattr(gan.validation, "build_extractor", build_extractor)
    gan.validation._feature_space.cache_clear()
    yield made
    gan.validation._feature_space.cache_clear()


def spec_of(config, folder, store):
    return TrialSpec(
        driver="",
        ledger=str(folder / "tiny"),
        extractors=str(folder / "nets"),
        index=0,
        overrides={},
        run=to_dict(trial_run(config, 0, {})),
        objective=config.sweep.objective,
        uri=store,
        experiment_id=prepare_store(store, "tiny"),
        experiment="tiny",
        parent_run_id=None,
        tags={},
        threads=1,
        device="cpu",
    )


@pytest.mark.mlflow
def test_a_trial_reports_the_distance_of_its_samples_to_the_validation_images(
    tmp_path, mlflow_store, extractors
):
    objective = f"sweep.objective={FRECHET_DISTANCE_VALID}"
    config = tiny_config(write_images(tmp_path), objective)
    spec = spec_of(config, tmp_path, mlflow_store)
    scored = [r for r in run_trial(spec) if FRECHET_DISTANCE_VALID in r]
    assert [r["step"] for r in scored] == [10, 20, 30, 40]

    ((extractor, folder),) = extractors  # one for the whole trial
    assert folder == tmp_path / "nets"
    assert extractor.n_calls == 1 + 4  # the validation images once, the samples of each score

    run = run_config(spec.run)
    (last,) = [r for r in scored if r["step"] == 40]
    checkpoint = load_newest(Ledger(tmp_path / "tiny").trial_folder(0) / "checkpoints")
    saved = from_state(checkpoint.tensors, run, image_shape=(1, 8, 8))
    samples = saved.sampler().sample(100, seed=run.seed)
    _, valid = load_train_valid(run.data)
    expected = frechet_distance(
        unit_pixels(valid).flatten(1).float() @ PROJECTION,
        samples.flatten(1).float() @ PROJECTION,
        seed=run.seed,
    ).distance
    got = torch.tensor([last[FRECHET_DISTANCE_VALID], last[FRECHET_DISTANCE_VALID_SE]])
    wanted = torch.tensor([expected.value, expected.standard_error])
    assert_close(got, wanted, rtol=1e-6, atol=0)


@pytest.mark.mlflow
def test_without_need_of_the_distance_no_extractor_is_made(tmp_path, mlflow_store, extractors):
    config = tiny_config(write_images(tmp_path), "sweep.objective=parzen_ll_valid")
    reports = list(run_trial(spec_of(config, tmp_path, mlflow_store)))
    assert extractors == []
    assert all(FRECHET_DISTANCE_VALID not in report for report in reports)
