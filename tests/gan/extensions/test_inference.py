"""The inference net.  Kinds: closed form, independent reference, algorithm, invariance."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gan.config import RunConfig, with_overrides
from gan.errors import ConfigError, DivergedError, ImageError
from gan.extensions.inference.nets import Codes, InferenceNet, codes_of
from gan.extensions.inference.run import FrozenRun, JointRun, Remembering
from gan.extensions.inference.scores import (
    beside_reconstructions,
    nearest_right,
    reconstruction_errors,
)
from gan.extensions.inference.training import code_error, frozen, unexplained
from gan.metric_names import CODE_ERROR, RECONSTRUCTION_ERROR
from gan.nets import Generator
from gan.priors import Gaussian, build_prior
from gan.randomness import stream
from gan.run import Run, unit_pixels
from gan.saved_generator import generator_of
from gan.tasks import start_run
from tests.gan.small import (
    SETTINGS,
    labelled_images,
    origin_of,
    small_config,
    small_images,
    small_run,
    start_extension,
)


def inference_config(**overrides):
    """A small run of the inference net; `layers=[1]` sets `inference.layers`."""
    settings = {f"inference.{name}": value for name, value in overrides.items()}
    return with_overrides(RunConfig(), SETTINGS | {"inference": {"hidden": [6]}} | settings)


def start(images=None, **overrides):
    config = inference_config(**overrides)
    images = images or labelled_images()
    return start_run(config, images, device="cpu", origin=origin_of(config))


def generator(**overrides):
    """A trained small generator with batch norm, in evaluation mode."""
    run = small_run(generator__batch_norm=True, **overrides)
    list(run.train())
    return run.saved()


# Losses


def test_code_error_is_that_of_loops():
    rng = np.random.default_rng(0)
    predicted, codes = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    spread = rng.uniform(0.5, 2, 4)
    total = 0.0
    for i in range(5):
        for j in range(4):
            total += (predicted[i, j] - codes[i, j]) ** 2 / spread[j] ** 2
    found = code_error(*(torch.from_numpy(a) for a in (predicted, codes, spread)))
    assert found.item() == pytest.approx(total / 20, rel=1e-12)


def test_guessing_the_mean_of_codes_has_error_one():
    codes = torch.randn(4000, 3, generator=stream(0, "codes"), dtype=torch.float64) * 7 + 2
    spread = codes.std(0, correction=0)
    guess = codes.mean(0).expand_as(codes)
    assert code_error(guess, codes, spread).item() == pytest.approx(1, rel=1e-9)


def test_the_mean_image_leaves_all_of_the_variance_unexplained():
    run = start(reconstruction=1.0)
    x = torch.from_numpy(small_images().images).flatten(1).double() / 255
    mean = x.mean(0).expand_as(x)
    assert unexplained(mean, x, run.learner.variance).item() == pytest.approx(1, rel=1e-6)
    assert unexplained(x, x, run.learner.variance).item() == 0


# Codes


def test_layers_are_those_that_the_forward_pass_goes_through():
    G = generator().G
    z = torch.randn(9, 5, generator=stream(0, "z"))
    layers = G.layers(z)
    h, expected = z, [z]
    for linear, norm in zip(G.linears[:-1], G.norms, strict=True):
        mean, var = norm.running_mean, norm.running_var
        scaled = (h @ linear.weight.T + linear.bias - mean) / (var + norm.eps).sqrt()
        h = (scaled * norm.weight + norm.bias).clamp(min=0)
        expected.append(h)
    assert len(layers) == 3
    for found, hidden in zip(layers, expected, strict=True):
        assert_close(found, hidden, rtol=1e-5, atol=1e-6)
    for i, hidden in enumerate(layers):
        assert_close(torch.sigmoid(G.logits(hidden, layer=i)), G(z))


@pytest.mark.parametrize(("layers", "width"), [([0], 5), ([2], 6), ([0, 1], 12), ([0, 1, 2], 18)])
def test_codes_are_the_layers_side_by_side(layers, width):
    config = inference_config(layers=layers)
    codes = codes_of(config)
    assert codes.width == width
    G = generator_of(generator(), (1, 4, 4))
    z = torch.randn(8, 5, generator=stream(0, "z"))
    found, pixels = codes.of(G, z)
    assert torch.equal(found, torch.cat([G.layers(z)[i] for i in layers], 1))
    assert torch.equal(pixels, G(z))
    assert_close(codes.decode(G, found), G(z))


def test_a_spread_is_the_standard_deviation_but_of_units_that_are_hardly_ever_on():
    codes = Codes(layers=(0, 1), widths=(2, 3))
    rows = torch.randn(5000, 5, generator=stream(0, "rows"), dtype=torch.float64)
    rows *= torch.tensor([1.0, 2.0, 3.0, 3.0, 0.0])
    found = codes.spread(rows)
    assert_close(found[:4], rows.std(0, correction=0)[:4])
    assert found[4].item() == pytest.approx(0.2 * rows[:, 2:].std(0, correction=0).mean().item())


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [-1]])
def test_layers_that_do_not_ascend_are_refused(layers):
    with pytest.raises(ConfigError, match=r"inference\.layers"):
        inference_config(layers=layers)


def test_a_layer_that_the_generator_has_not_is_refused():
    with pytest.raises(
        ConfigError, match=r"inference\.layers must be from 0, .* to 2, .*got \[0, 3\]"
    ):
        start(layers=[0, 3])
    with pytest.raises(
        ConfigError, match=r"inference\.layers must be from 0, .* to 2, .*got \[3\]"
    ):
        inference_config(layers=[3], generator="joint")


def test_a_generator_of_another_shape_is_refused():
    config = inference_config()
    wide = dataclasses.replace(small_images(), images=np.zeros((30, 1, 4, 5), np.uint8))
    with pytest.raises(ConfigError, match=r"makes images of shape \(1, 4, 4\), the training"):
        start_run(config, wide, device="cpu", origin=origin_of(config))


# Learning


def test_a_frozen_generator_stays_bit_for_bit_as_it_is():
    config = inference_config(reconstruction=1.0)
    origin = generator()
    before = {k: t.clone() for k, t in origin.tensors().items()}
    run = start_run(config, labelled_images(), device="cpu", origin=origin)
    list(run.train())
    assert_close(origin.tensors(), before, rtol=0, atol=0)
    assert_close(run.saved().G.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("joint_z", ["same", "fresh"])
@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_the_game_beside_a_joint_net_is_what_it_is_without(joint_z, average_decay):
    settings = {"train__average_decay": average_decay, "generator__batch_norm": True}
    alone = small_run(**settings)
    expected = list(alone.train())
    paths = {name.replace("__", "."): value for name, value in settings.items()}
    inference = {
        "hidden": [6],
        "generator": "joint",
        "joint_z": joint_z,
        "layers": [0, 1],
        "reconstruction": 1.0,
    }
    config = with_overrides(RunConfig(), SETTINGS | paths | {"inference": inference})
    run = start_run(config, small_images(), device="cpu")
    assert isinstance(run, JointRun)
    assert [report.game for report in run.train()] == expected
    beside = run.state()
    assert_close({k: beside[k] for k in alone.state()}, alone.state(), rtol=0, atol=0)


def test_joint_learning_is_of_the_z_of_the_last_update_or_of_others(monkeypatch):
    for joint_z in ("same", "fresh"):
        run = start_extension("inference_joint", inference__joint_z=joint_z)
        drawn, learned = [], []
        sample = Gaussian(5).sample

        def remember(self, n, rng, drawn=drawn, sample=sample):
            drawn.append(sample(n, rng))
            return drawn[-1]

        def learn(G, z, learned=learned):
            learned.append(z)
            return torch.zeros(()), torch.zeros(())

        monkeypatch.setattr(type(run.prior.prior), "sample", remember)
        monkeypatch.setattr(run.learner, "step", learn)
        next(run.train())
        # z of D's update, z of G's update, and then, if it is fresh, z of E's.
        assert len(drawn) == (2 if joint_z == "same" else 3)
        assert torch.equal(learned[0], drawn[-1])


def test_a_remembering_prior_gives_what_the_prior_gives():
    prior = Remembering(Gaussian(3))
    z = prior.sample(4, stream(0, "z"))
    assert torch.equal(z, Gaussian(3).sample(4, stream(0, "z")))
    assert prior.last is z
    assert prior.dim == 3


def test_frozen_puts_everything_back():
    G = Generator(3, hidden=[4], n_pixels=5, batch_norm=True)
    G.linears[0].bias.requires_grad_(False)
    required = [p.requires_grad for p in G.parameters()]
    with frozen(G):
        assert not G.training
        assert not any(p.requires_grad for p in G.parameters())
    assert G.training
    assert [p.requires_grad for p in G.parameters()] == required


def invertible_origin():
    """A generator of a linear map: pixels 0.5 +- z in the linear part of the sigmoid."""
    origin = origin_of(inference_config())
    config = with_overrides(
        origin.config, {"prior.dim": 3, "generator.hidden": [6], "prior.kind": "gaussian"}
    )
    G = Generator(3, hidden=[6], n_pixels=16)
    with torch.no_grad():
        # relu(z) and relu(-z), of which the output takes the difference.
        G.linears[0].weight.copy_(torch.cat([torch.eye(3), -torch.eye(3)]))
        out = torch.zeros(16, 6)
        for i in range(3):
            out[5 * i, i], out[5 * i, i + 3] = 0.5, -0.5
        G.linears[1].weight.copy_(out)
        for linear in G.linears:
            linear.bias.zero_()
    return dataclasses.replace(origin, G=G.eval().requires_grad_(False), config=config)


@pytest.fixture(scope="module")
def of_linear():
    """An inference net that was trained on the samples of a generator that can be inverted."""
    config = with_overrides(
        inference_config(hidden=[64]),
        {
            "train.n_steps": 600,
            "train.report_every": 100,
            "evaluation.score_every": 600,
            "train.batch_size": 30,
            "train.optimizer": "adam",
            "train.learning_rate": 0.01,
            "train.decay_per_step": 1.005,
        },
    )
    run = start_run(config, labelled_images(), device="cpu", origin=invertible_origin())
    reports = list(run.train())
    return run.saved(), reports


def test_z_of_a_generator_that_can_be_inverted_is_found(of_linear):
    saved, reports = of_linear
    first, last = (report.metrics()[CODE_ERROR] for report in (reports[0], reports[-1]))
    assert last < 0.05 < first
    z = Gaussian(3).sample(500, stream(7, "z"))
    images = saved.sampler().decode(z)
    error = (saved.encode(images) - z).square().mean()
    assert error < 0.05
    untrained = (saved.untrained().encode(images) - z).square().mean()
    assert untrained > 0.5


def test_refinement_goes_down_and_to_the_z_that_was_drawn(of_linear):
    saved, _ = of_linear
    z = Gaussian(3).sample(50, stream(8, "z"))
    images = saved.sampler().decode(z)
    errors = [
        (saved.reconstruct(images, refine_steps=n) - images).square().mean().item()
        for n in (0, 20, 200)
    ]
    assert errors[2] < errors[1] < errors[0]
    found = saved.encode(images, refine_steps=200)
    assert (found - z).square().mean() < (saved.encode(images) - z).square().mean() / 5


def test_refinement_of_an_image_does_not_depend_on_the_others(of_linear):
    saved, _ = of_linear
    images = saved.sampler().sample(20, seed=0)
    together = saved.encode(images, refine_steps=5)
    alone = torch.cat([saved.encode(image[None], refine_steps=5) for image in images])
    assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_refinement_moves_the_lowest_layer_alone():
    saved = start(layers=[0, 2]).saved()
    images = saved.sampler().sample(4, seed=0)
    before, after = saved.encode(images), saved.encode(images, refine_steps=3)
    assert not torch.equal(before[:, :5], after[:, :5])
    assert torch.equal(before[:, 5:], after[:, 5:])


def test_reconstruction_of_training_images_is_learned():
    settings = {"layers": [0], "hidden": [32], "reconstruction": 10.0}
    config = with_overrides(
        inference_config(**settings),
        {
            "train.n_steps": 200,
            "train.report_every": 50,
            "evaluation.score_every": 200,
            "train.optimizer": "adam",
            "train.learning_rate": 0.01,
            "generator.init_range": 1.0,
        },
    )
    run = start_run(config, small_images(), device="cpu", origin=origin_of(config))
    reports = [report.metrics()[RECONSTRUCTION_ERROR] for report in run.train()]
    assert reports[-1] < 0.95 * reports[0]


def test_without_the_weight_no_training_image_is_looked_at():
    one, other = (start(images=small_images(seed=seed)) for seed in (0, 1))
    for run in (one, other):
        assert list(run.train())[-1].metrics()[RECONSTRUCTION_ERROR] == 0
    assert_close(one.saved().E.state_dict(), other.saved().E.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("distort_images", [False, True])
def test_training_images_are_seen_distorted_where_that_is_asked_for(distort_images, monkeypatch):
    run = start(reconstruction=1.0, shift=1, distort_images=distort_images)
    distorted, seen = [], []
    predict = run.learner._predict

    def distort(self, x, image_shape, rng):
        distorted.append(x)
        return torch.zeros_like(x)

    monkeypatch.setattr(type(run.learner.distortions), "apply", distort)
    monkeypatch.setattr(run.learner, "_predict", lambda x: (seen.append(x), predict(x))[1])
    next(run.train())
    # Samples, and then images, are replaced by black ones if they are distorted.
    assert len(distorted) == 1 + distort_images
    assert not seen[0][:8].any()
    assert bool(seen[0][8:].any()) != distort_images


def test_a_run_that_diverges_says_so():
    config = with_overrides(inference_config(), {"train.learning_rate": 1e30})
    run = start_run(config, small_images(), device="cpu", origin=origin_of(config))
    with pytest.raises(DivergedError, match=f"got {CODE_ERROR} = (nan|inf)"):
        list(run.train())


# Dropout, and what is kept


def test_masks_drop_pixels_and_units_in_training_alone():
    E = InferenceNet(
        16, hidden=[8, 4], n_code=3, batch_norm=False, dropout_input=0.5, dropout_hidden=0.25
    )
    masks = E.draw_masks(1000, stream(0, "masks"))
    assert [mask.shape for mask in masks] == [(1000, 16), (1000, 8), (1000, 4)]
    assert [(mask == 0).double().mean().item() for mask in masks] == pytest.approx(
        [0.5, 0.25, 0.25], abs=0.03
    )
    x = torch.rand(1000, 16, generator=stream(0, "x"))
    assert not torch.equal(E(x, masks), E(x))
    ones = [torch.ones_like(mask) for mask in masks]
    assert torch.equal(E(x, ones), E(x))


def test_points_are_codes_in_standard_deviations_of_samples():
    saved = start(layers=[0, 1]).saved()
    images = saved.sampler().sample(6, seed=0)
    assert torch.equal(saved.points(images), saved.encode(images) / saved.spread)
    z = build_prior(saved.config.prior).sample(20_000, stream(3, "z"))
    assert_close(saved.spread[:5], z.std(0), rtol=0.05, atol=0)


def test_the_code_is_a_linear_function_of_the_features():
    saved = start().saved()
    images = saved.sampler().sample(6, seed=0)
    features = saved.features(images)
    assert features.shape == (6, 6)
    assert_close(features @ saved.E.output.weight.T + saved.E.output.bias, saved.encode(images))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 4, 5), r"images must be \[n, 1, 4, 4\], got \[2, 1, 4, 5\]"),
        (torch.zeros(0, 1, 4, 4), r"images must be \[n, 1, 4, 4\], got \[0, 1, 4, 4\]"),
        (torch.zeros(2, 16), r"images must be \[n, 1, 4, 4\], got \[2, 16\]"),
        (torch.full((1, 1, 4, 4), 255.0), r"pixels in \[0, 1\], got 255 to 255"),
        (torch.full((1, 1, 4, 4), -0.1), r"pixels in \[0, 1\], got -0\.1 to -0\.1"),
        (torch.full((1, 1, 4, 4), torch.nan), r"pixels in \[0, 1\], got nan to nan"),
        (
            torch.zeros(1, 1, 4, 4, dtype=torch.uint8),
            r"floating point .*, got torch.uint8",
        ),
    ],
)
def test_images_of_which_there_is_no_code_are_refused(images, message):
    saved = start().saved()
    for use in (saved.encode, saved.reconstruct, saved.points, saved.features):
        with pytest.raises(ImageError, match=message):
            use(images)


# Scores


def test_reconstruction_errors_are_those_of_loops():
    saved = start().saved()
    images = saved.sampler().sample(3, seed=1)
    found = saved.reconstruct(images).numpy()
    expected = [float(((a - b) ** 2).mean()) for a, b in zip(found, images.numpy(), strict=True)]
    assert reconstruction_errors(saved, images).tolist() == pytest.approx(expected, rel=1e-5)


def test_refined_errors_are_less():
    saved = start(refine_steps=20).saved()
    images = unit_pixels(small_images()).float()
    refined = reconstruction_errors(saved, images, is_refined=True).mean()
    assert refined < reconstruction_errors(saved, images).mean()


def test_nearest_by_codes_is_that_of_a_loop():
    saved = start(layers=[0, 1]).saved()
    queries, references = labelled_images(12, seed=1), labelled_images(30, seed=2)
    q, r = (saved.points(unit_pixels(images).float()).numpy() for images in (queries, references))
    expected = []
    for point, label in zip(q, queries.labels, strict=True):
        distances = [float(((point - other) ** 2).sum()) for other in r]
        expected.append(bool(references.labels[int(np.argmin(distances))] == label))
    assert nearest_right(saved, queries, references).tolist() == expected
    few = nearest_right(saved, queries, references, limit=2)
    nearer = ((q[:, None] - r[None, :2]) ** 2).sum(2).argmin(1)
    assert few.tolist() == (references.labels[nearer] == queries.labels).tolist()


def test_a_picture_has_rows_of_images_over_rows_of_their_reconstructions():
    saved = start().saved()
    images = unit_pixels(small_images(20)).float()
    picture = beside_reconstructions(saved, images)
    assert picture.shape == (40, 1, 4, 4)
    assert torch.equal(picture[:10], images[:10])
    assert_close(picture[10:20], saved.reconstruct(images[:10]))
    assert torch.equal(picture[20:30], images[10:])


def test_the_kinds_of_run():
    assert isinstance(start(), FrozenRun)
    assert isinstance(start_extension("inference_joint"), JointRun)
    assert not isinstance(start(), Run)
    assert small_config().task == "generator"
