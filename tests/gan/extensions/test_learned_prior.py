"""Learned distributions of z.  Kinds: closed form, independent reference, algorithm, bad input."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import chisquare
from torch.testing import assert_close

from gan.algorithm1 import every_fake
from gan.config import LearnedPriorConfig, PriorConfig
from gan.errors import ConfigError
from gan.extensions.learned_prior import adopt, n_taught, noise, top_k
from gan.extensions.prior_nets import BelowZ, ComponentNoise, Components, UnitCube, support_of
from gan.extensions.resampling import Candidates, drawn_candidate
from gan.priors import Prior, Uniform, build_prior
from gan.randomness import stream
from gan.saved_generator import SavedGenerator
from gan.tasks import start_run
from tests.gan.small import labelled_images, small_config, small_run, start_extension

KINDS = ("uniform", "gaussian", "spherical", "bernoulli", "truncated_normal", "mixture")


def trained(method, **settings):
    run = start_extension(f"learned_prior_{method}", **settings)
    list(run.train())
    return run


def changed(before, after):
    """Names of tensors that are not bit for bit the same."""
    return {name for name in before if not torch.equal(before[name], after[name])}


@dataclasses.dataclass
class Recorded:
    """A prior that says when it is drawn from."""

    name: str
    source: Prior
    drawn: list[str]

    def sample(self, n, rng):
        self.drawn.append(self.name)
        return self.source.sample(n, rng)


# A net below z


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_begins_as_the_generator_that_it_stands_on(kind):
    config = small_config(prior__kind=kind, prior__n_components=3)
    origin = start_run(config, labelled_images(), device="cpu").saved()
    stacked = dataclasses.replace(
        config, learned_prior=LearnedPriorConfig(method="stacked", hidden=(9,))
    )
    run = start_run(stacked, labelled_images(), device="cpu", origin=origin)
    ours, theirs = (saved.sampler().sample(20, seed=3) for saved in (run.saved(), origin))
    # Bernoulli's z lie on the edge of their box, and are taken for 1e-4 within.
    assert_close(ours, theirs, rtol=0, atol=1e-3 if kind == "bernoulli" else 1e-5)


@pytest.mark.parametrize("is_residual", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_z_stays_on_the_support_whatever_the_net_says(kind, is_residual):
    prior = build_prior(PriorConfig(kind=kind, dim=6, n_components=3))
    below = BelowZ(6, hidden=[8], support=support_of(prior), is_residual=is_residual)
    for parameter in below.parameters():
        torch.nn.init.normal_(parameter, std=3.0, generator=stream(0, "weights"))
    z = below(prior.sample(500, stream(0, "noise"))).detach()
    bound = {"uniform": math.sqrt(3), "bernoulli": 1.0, "truncated_normal": 2 / 0.87962566}
    if kind in bound:
        assert z.abs().max() <= bound[kind] + 1e-5
    elif kind == "spherical":
        assert_close(z.norm(dim=1), torch.ones(500), rtol=1e-5, atol=0)
    else:
        assert z.abs().max() > 10


def test_the_net_below_z_is_that_of_the_formula():
    below = BelowZ(3, hidden=[4], support=support_of(Uniform(3)), is_residual=True)
    for parameter in below.parameters():
        torch.nn.init.normal_(parameter, generator=stream(0, "weights"))
    e = Uniform(3).sample(7, stream(0, "noise"))
    (w, b), (v, c) = ([p.detach().numpy() for p in layer.parameters()] for layer in below.linears)
    f = np.maximum(e.numpy() @ w.T + b, 0) @ v.T + c
    expected = np.sqrt(3) * np.tanh(np.arctanh(e.numpy() / np.sqrt(3)) + f)
    assert_allclose(below(e).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_stack_is_trained_whole_unless_the_generator_is_frozen():
    settings = {"generator__batch_norm": True, "generator__dropout_hidden": 0.3}
    for is_frozen in (False, True):
        run = start_extension(
            "learned_prior_stacked", learned_prior__freeze_generator=is_frozen, **settings
        )
        before = {name: t.clone() for name, t in run.gan.G.state_dict().items()}
        list(run.train())
        names = changed(before, run.gan.G.state_dict())
        assert any(name.startswith("below.") for name in names)
        assert any(name.startswith("G.") for name in names) != is_frozen


def test_a_released_stack_has_sigmoid_units_with_their_bias_whatever_the_prior():
    run = start_extension(
        "learned_prior_stacked",
        learned_prior__begin="random",
        learned_prior__output="sigmoid",
        learned_prior__output_bias=-2.0,
        learned_prior__init_range=0.05,
        learned_prior__hidden=[9],
    )
    below = run.gan.G.below
    assert (below.linears[1].bias == -2).all()
    assert (below.linears[0].bias == 0).all()
    assert 0.04 < below.linears[1].weight.abs().max() <= 0.05
    e = 3 * torch.randn(6, 5, generator=stream(0, "e"))
    h = (e @ below.linears[0].weight.T).relu()
    z = below(e)
    assert_close(z, torch.sigmoid(h @ below.linears[1].weight.T - 2))
    assert_close(UnitCube().cover(UnitCube().coordinates(z)), z)


def test_sigmoid_units_cannot_begin_as_the_identity():
    with pytest.raises(ConfigError, match=r"learned_prior\.begin must be random .* got identity"):
        small_config(learned_prior={"method": "stacked", "output": "sigmoid"})


def test_a_limit_of_norms_holds_in_the_whole_stack():
    run = start_extension(
        "learned_prior_stacked", learned_prior__begin="random", generator__max_column_norm=0.2
    )
    assert run.cfg.generator.max_column_norm is None  # a stack has the settings of its generator
    limited = dataclasses.replace(run.cfg.generator, max_column_norm=0.2)
    origin = SavedGenerator(
        G=run.gan.G.G.eval(),
        config=dataclasses.replace(run.cfg, learned_prior=None, generator=limited),
        image_shape=run.image_shape,
    )
    run = start_run(run.cfg, labelled_images(), device="cpu", origin=origin)
    next(run.train())
    for name, weight in run.gan.G.named_parameters():
        if name.endswith("weight"):
            assert weight.norm(dim=1).max() <= 0.2 * (1 + 1e-6)


def test_random_weights_begin_elsewhere_than_the_generator():
    origin = small_run().saved()
    run = start_extension("learned_prior_stacked", learned_prior__begin="random")
    z = run.gan.G.below(run.gan.prior.sample(50, stream(0, "noise")))
    assert z.abs().mean() < 0.7  # of sqrt 3 * tanh of small numbers; uniform noise has 0.87
    assert not torch.equal(run.saved().sampler().sample(5, 0), origin.sampler().sample(5, 0))


def test_a_stack_takes_over_the_prior_and_the_shape_of_its_generator():
    origin = small_run(prior__kind="gaussian", prior__dim=3, generator__hidden=[9]).saved()
    config = small_config(learned_prior={"method": "stacked"})
    saved = start_run(config, labelled_images(), device="cpu", origin=origin).saved()
    assert (saved.config.prior, saved.config.generator) == (
        origin.config.prior,
        origin.config.generator,
    )
    assert saved.config == adopt(config, origin.config)
    assert saved.G.G.hidden == (9,)


def test_a_generator_of_other_images_is_refused():
    origin = dataclasses.replace(small_run().saved(), image_shape=(1, 2, 8))
    with pytest.raises(ConfigError, match=r"makes images of shape \(1, 2, 8\), the training im"):
        start_run(
            small_config(learned_prior={"method": "stacked"}),
            labelled_images(),
            device="cpu",
            origin=origin,
        )


# A mixture


def components(n=4, dim=3):
    rng = stream(1, "components")
    means, log_widths = (torch.randn(n, dim, generator=rng) for _ in range(2))
    return Components(5 + 2 * means, log_widths, component_std=0.6)


def test_a_mixture_is_that_of_the_formula():
    mixture = components()
    row = ComponentNoise(3, 4).sample(9, stream(0, "noise"))
    e, k = row[:, :3].numpy(), row[:, 3:].argmax(1).numpy()
    mu, sigma = mixture.means.detach().numpy(), np.exp(mixture.log_widths.detach().numpy())
    nu = 0.8 * (mu - mu.mean(0)) / mu.std(0)
    tau = 0.6 * sigma / np.sqrt((sigma**2).mean(0))
    expected = nu[k] + tau[k] * e
    assert_allclose(mixture(row).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_mixture_has_mean_0_and_variance_1_whatever_was_learned():
    z = components()(ComponentNoise(3, 4).sample(200_000, stream(0, "noise"))).detach()
    assert_allclose(z.mean(0), np.zeros(3), rtol=0, atol=0.01)
    assert_allclose(z.var(0), np.ones(3), rtol=0.03, atol=0)


def test_the_share_of_the_variance_within_components_is_not_learned():
    means, widths = components().normalised()
    assert_allclose(widths.detach().square().mean(0), np.full(3, 0.36), rtol=1e-5)
    assert_allclose(means.detach().square().mean(0), np.full(3, 0.64), rtol=1e-5)


def test_components_are_drawn_equally_often():
    row = ComponentNoise(2, 5).sample(10_000, stream(0, "noise"))
    assert row[:, 2:].sum(1).unique().tolist() == [1.0]
    assert chisquare(row[:, 2:].sum(0).numpy()).pvalue > 1e-3
    assert_allclose(row[:, :2].std(0), np.ones(2), rtol=0.05, atol=0)


def test_means_and_widths_are_learned():
    run = start_extension("learned_prior_mixture")
    before = {name: t.clone() for name, t in run.gan.G.state_dict().items()}
    list(run.train())
    assert {"components.means", "components.log_widths"} <= changed(before, run.gan.G.state_dict())


def test_components_begin_with_the_width_that_was_asked_for():
    run = start_extension("learned_prior_mixture", learned_prior__component_std=0.3)
    _, widths = run.gan.G.components.normalised()
    assert_allclose(widths.detach(), np.full((3, 5), 0.3), rtol=1e-5)


# Resampling by D


def test_candidates_are_drawn_by_the_odds_that_d_gives():
    logits = torch.tensor([0.0, 1.0, -2.0]).expand(60_000, -1)
    u = torch.rand(60_000, 3, generator=stream(0, "u"))
    odds = np.exp([0.0, 1.0, -2.0])
    counts = drawn_candidate(logits, u).bincount(minlength=3).numpy()
    assert chisquare(counts, 60_000 * odds / odds.sum()).pvalue > 1e-3


def test_the_ends_of_the_uniform_numbers_are_finite():
    u = torch.tensor([[0.0, 0.5], [0.5, 1.0]])
    assert drawn_candidate(torch.zeros(2, 2), u).tolist() == [1, 1]


def test_rows_of_candidates_are_independent_draws_of_the_prior():
    candidates = Candidates(Uniform(2), 3)
    row = candidates.sample(1_000, stream(0, "noise"))
    assert row.shape == (1_000, candidates.dim) == (1_000, 9)
    z, u = candidates.split(row)
    assert_close(z.view(1_000, 3, 2)[:, 1], row[:, 2:4], rtol=0, atol=0)
    assert_close(u, row[:, 6:], rtol=0, atol=0)
    assert z.abs().max() <= math.sqrt(3)
    assert 0 <= u.min()
    assert u.max() < 1
    assert np.abs(np.corrcoef(row.numpy().T) - np.eye(9)).max() < 0.15


def test_training_draws_the_z_that_the_saved_net_would_choose():
    run = trained("importance", train__average_decay=0.0)
    z = run.gan.g_prior.sample(40, stream(3, "noise"))
    row = noise(run.cfg).sample(40, stream(3, "noise"))
    saved = run.saved()
    assert_close(saved.G(row), saved.G.G(z), rtol=1e-5, atol=1e-6)
    # It is a choice: of four, another one than the first three times in four.
    candidates, _ = noise(run.cfg).split(row)
    is_first = (z == candidates.view(40, 4, -1)[:, 0]).all(1)
    assert 0 < is_first.sum() < 40


def test_d_learns_from_the_prior_itself_and_g_from_what_was_chosen(monkeypatch):
    run = start_extension("learned_prior_importance", train__d_steps=2)
    drawn = []
    for name in ("prior", "g_prior"):
        monkeypatch.setattr(run.gan, name, Recorded(name, getattr(run.gan, name), drawn))
    next(run.train())
    assert drawn == ["prior", "prior", "g_prior"]
    assert run.gan.prior.source == build_prior(run.cfg.prior)


def test_fakes_that_both_players_share_are_not_resampled():
    with pytest.raises(
        ConfigError, match=r"update_order must be alternating with learned_p.* importance"
    ):
        small_config(learned_prior={"method": "importance"}, train__update_order="simultaneous")


def test_choosing_leaves_both_nets_in_training_and_as_they_were():
    run = start_extension("learned_prior_importance", generator__batch_norm=True)
    before = {name: t.clone() for name, t in run.gan.G.state_dict().items()}
    run.gan.g_prior.sample(8, stream(0, "noise"))
    assert run.gan.G.training
    assert run.gan.D.training
    assert changed(before, run.gan.G.state_dict()) == set()


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_samples_are_chosen_by_the_average_of_d_beside_that_of_g(decay):
    run = start_extension("learned_prior_importance", train__average_decay=decay)
    expected = None
    for _ in run.train():
        now = {name: t.clone() for name, t in run.gan.D.state_dict().items()}
        # The average begins at D after its first update.
        expected = expected or now
        expected = {k: decay * expected[k] + (1 - decay) * now[k] for k in now}
    found = run.saved().G.D.state_dict()
    assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert any(name.startswith("d_average/") for name in run.state()) == (decay > 0)
    other = start_extension("learned_prior_fixed", train__average_decay=decay)
    assert not any(name.startswith("d_average/") for name in other.state())


def test_what_is_saved_does_not_change_as_training_goes_on():
    run = start_extension("learned_prior_importance")
    saved = run.saved()
    before = {name: t.clone() for name, t in saved.tensors().items()}
    assert {name.split(".")[0] for name in before} == {"G", "D"}
    list(run.train())
    assert changed(before, saved.tensors()) == set()
    assert changed(before, run.saved().tensors()) >= {"G.linears.0.weight", "D.output.weight"}


# Top-k updates of G


def test_g_learns_from_fewer_samples_epoch_by_epoch_down_to_the_floor():
    def counts(steps):
        return [
            n_taught(step, batch_size=100, epoch_steps=500, decay=0.9, floor=0.7) for step in steps
        ]

    assert counts([0, 499, 500, 999, 1_000, 1_500, 2_000, 10**6]) == [
        100, 100, 90, 90, 81, 73, 70, 70,
    ]  # fmt: skip


def test_the_most_convincing_samples_teach():
    logits = torch.tensor([3.0, -1.0, 2.0, 0.0], requires_grad=True)
    cfg = LearnedPriorConfig(top_k_decay=0.5, top_k_floor=0.5)
    taught = top_k(cfg, epoch_steps=10)
    assert sorted(taught(logits, 9).tolist()) == [-1.0, 0.0, 2.0, 3.0]
    taught(logits, 10).sum().backward()
    assert logits.grad.tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_the_first_epoch_is_that_of_the_paper_and_the_second_not(order):
    """30 images and minibatches of 8: an epoch is 3.75 updates."""
    settings = {
        "train__update_order": order,
        "learned_prior__top_k_decay": 0.5,
        "train__n_steps": 6,
        "evaluation__score_every": 6,
    }
    ours = start_extension("learned_prior_top_k", **settings)
    theirs = start_extension("learned_prior_fixed", **settings)
    losses = [[report.g_loss for report in run.train()] for run in (ours, theirs)]
    assert losses[0][:4] == losses[1][:4]
    assert losses[0][4] < losses[1][4]  # -log D over the best half


# Pictures


def test_a_picture_of_a_stack_has_its_generator_s_own_images_above():
    run = start_extension("learned_prior_stacked", learned_prior__begin="random")
    saved = run.saved()
    rows = saved.sampler().prior.sample(100, stream(4, "contrast"))
    images = saved.contrast(seed=4)
    assert images.shape == (100, 1, 4, 4)
    assert_close(images[:10].flatten(1), saved.G.G(rows[:10]), rtol=1e-5, atol=1e-6)
    assert_close(images[10:20].flatten(1), saved.G(rows[:10]), rtol=1e-5, atol=1e-6)
    assert_close(images[90:].flatten(1), saved.G(rows[40:50]), rtol=1e-5, atol=1e-6)


def test_a_picture_of_resampling_has_first_candidates_above():
    saved = start_extension("learned_prior_importance").saved()
    rows = saved.sampler().prior.sample(100, stream(4, "contrast"))
    images = saved.contrast(seed=4)
    assert_close(images[20:30].flatten(1), saved.G.G(rows[10:20, :5]), rtol=1e-5, atol=1e-6)
    assert_close(images[30:40].flatten(1), saved.G(rows[10:20]), rtol=1e-5, atol=1e-6)


def test_a_row_of_a_picture_of_a_mixture_has_one_component():
    saved = start_extension("learned_prior_mixture").saved()
    rows = saved.sampler().prior.sample(100, stream(4, "contrast"))
    rows[:, 5:] = torch.eye(3)[torch.arange(100) // 10 % 3]
    assert_close(saved.contrast(seed=4).flatten(1), saved.G(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["top_k", "fixed"])
def test_a_picture_of_a_plain_generator_has_samples(method):
    saved = start_extension(f"learned_prior_{method}").saved()
    assert saved.plain() is None
    assert torch.equal(saved.contrast(seed=4), saved.sampler().sample(100, seed=4))


@pytest.mark.parametrize(
    ("method", "kind"),
    [("stacked", "Uniform"), ("mixture", "Gaussian"), ("importance", "Uniform")],
)
def test_the_generator_alone_draws_by_a_fixed_prior(method, kind):
    saved = start_extension(f"learned_prior_{method}").saved()
    plain = saved.plain()
    assert (type(plain.prior).__name__, plain.prior.dim) == (kind, 5)
    z = plain.prior.sample(1_000, stream(0, "samples"))[:9]
    assert_close(plain.sample(9, seed=0).flatten(1), saved.G.G(z), rtol=1e-5, atol=1e-6)


# A fixed prior


def test_a_fixed_prior_trains_as_the_paper_s_generator_bit_for_bit():
    ours, theirs = trained("fixed"), small_run()
    theirs.minibatches.images.copy_(ours.minibatches.images)
    list(theirs.train())
    assert_close(ours.state(), theirs.state(), rtol=0, atol=0)


def test_all_fakes_teach_unless_something_else_is_asked_for():
    logits = torch.randn(5, generator=stream(0, "logits"))
    assert every_fake(logits, 3) is logits
