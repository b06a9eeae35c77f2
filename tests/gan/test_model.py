"""Both players and all that their training depends on.  Kinds: invariance (resume), reference."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from gan.checkpoint import load_checkpoint, load_newest, save_checkpoint
from gan.model import build_gan
from gan.run import Run
from tests.gan.small import small_config, small_images, small_run

OF_IMAGES = {
    "pixel_mean": torch.linspace(0, 1, 16, dtype=torch.float64),
    "image_shape": (1, 4, 4),
}


def through_disk(run, folder, *, device="cpu"):
    """The run as another process would find it."""
    path = save_checkpoint(folder, step=run.gan.step, tensors=run.state(), meta={})
    resumed = Run(run.cfg, small_images(), device=device)
    resumed.set_state(load_checkpoint(path).tensors)
    return resumed


# Resume: 2N steps = N + save + load + N, bit for bit

EXTRAS = {
    "plain": {},
    "average": {"train__average_decay": 0.9},
    "batch_norm": {"generator__batch_norm": True, "train__average_decay": 0.9},
    "g_dropout": {"generator__dropout_hidden": 0.3},
    "leaky": {"discriminator__activation": "leaky_relu"},
    "mixture": {"prior__kind": "mixture"},
    "truncated": {"prior__kind": "truncated_normal"},
    "bfloat16": {"train__precision": "bfloat16"},
    "k": {"train__d_steps": 3},
}


@pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(order, optimizer, extras, tmp_path):
    settings = {
        "train__update_order": order,
        "train__optimizer": optimizer,
        "train__n_steps": 8,
        "train__report_every": 2,
        **extras,
    }
    whole, half = small_run(**settings), small_run(**settings)
    expected = list(whole.train())
    reports = list(itertools.islice(half.train(), 2))
    resumed = through_disk(half, tmp_path)
    assert resumed.gan.step == 4
    reports += list(resumed.train())
    assert reports == expected
    ours, theirs = resumed.state(), whole.state()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resumed.gan.generator()(z), whole.gan.generator()(z))


def test_a_run_that_has_not_begun_can_be_saved_and_resumed(tmp_path):
    resumed = through_disk(small_run(), tmp_path)
    assert list(resumed.train()) == list(small_run().train())


def test_a_run_resumed_from_a_fallback_is_the_same_run(tmp_path):
    """Whatever was trained after the last whole checkpoint is trained again, not differently."""
    run = small_run(train__optimizer="adam")
    for progress in run.train():
        save_checkpoint(tmp_path, step=progress.step, tensors=run.state(), meta={})
    shutil.rmtree(tmp_path / "step_00000004")
    resumed = small_run(train__optimizer="adam")
    resumed.set_state(load_newest(tmp_path).tensors)
    assert resumed.gan.step == 3
    list(resumed.train())
    assert_close(resumed.state(), run.state(), rtol=0, atol=0)


def test_training_on_leaves_the_state_that_was_read_as_it_was(tmp_path):
    run = small_run(train__average_decay=0.9, generator__batch_norm=True)
    next(run.train())
    path = save_checkpoint(tmp_path, step=1, tensors=run.state(), meta={})
    tensors = load_checkpoint(path).tensors
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    resumed = small_run(train__average_decay=0.9, generator__batch_norm=True)
    resumed.set_state(tensors)
    list(resumed.train())
    assert_close(tensors, before, rtol=0, atol=0)


def test_state_holds_both_nets_and_optimisers_the_average_the_streams_and_the_epoch():
    run = small_run(train__average_decay=0.9, generator__batch_norm=True)
    next(run.train())
    names = set(run.state())
    parts = {"G", "D", "g_descent", "d_descent", "average", "streams", "images", "step"}
    assert {name.split("/")[0] for name in names} == parts
    assert {"streams/data", "streams/noise", "streams/dropout", "images/order"} < names
    assert {"average/n_averaged", "average/module.norms.0.running_var"} < names
    assert sum(name.endswith("momentum_buffer") for name in names) == 10 + 6


# Average of G: independent reference


@pytest.mark.parametrize("batch_norm", [False, True])
def test_average_is_exponential_over_parameters_and_batch_norm_statistics(batch_norm):
    run = small_run(train__average_decay=0.8, generator__batch_norm=batch_norm, train__n_steps=6)
    expected = None
    for _ in run.train():
        now = {n: t.numpy().astype(np.float64) for n, t in run.gan.G.state_dict().items()}
        if expected is None:
            expected = now  # the average begins at G after its first update
        expected = {name: 0.8 * expected[name] + 0.2 * now[name] for name in now}
    averaged = run.gan.generator().state_dict()
    names = [name for name in averaged if "num_batches" not in name]
    assert len(names) == (6 + 8 if batch_norm else 6)
    for name in names:
        assert_allclose(averaged[name].numpy(), expected[name], rtol=1e-5, atol=1e-7)


def test_without_an_average_g_itself_is_sampled():
    run = small_run()
    list(run.train())
    assert run.gan.average is None
    assert_close(run.gan.generator().state_dict(), run.gan.G.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_generator_to_sample_is_a_frozen_copy(decay):
    run = small_run(train__average_decay=decay)
    next(reports := run.train())
    G = run.gan.generator()
    before = [p.clone() for p in G.parameters()]
    list(reports)
    assert_close(list(G.parameters()), before, rtol=0, atol=0)
    assert not G.training
    assert run.gan.G.training
    assert not any(p.requires_grad for p in G.parameters())


# Building


def test_players_depend_on_the_seed_alone():
    def weights(seed):
        gan = build_gan(small_config(seed=seed), **OF_IMAGES, device="cpu")
        return torch.cat([p.detach().flatten() for p in gan.G.parameters()])

    torch.manual_seed(3)
    first = weights(0)
    torch.manual_seed(4)
    assert_array_equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_optimisers_and_precision_come_from_the_configuration():
    cfg = small_config(train__d_learning_rate=0.03, train__learning_rate=0.04)
    gan = build_gan(cfg, **OF_IMAGES, device="cpu")
    assert (gan.g_descent.learning_rate, gan.d_descent.learning_rate) == (0.04, 0.03)
    assert gan.g_descent.params == list(gan.G.parameters())
    assert gan.d_descent.params == list(gan.D.parameters())
    assert gan.prior.dim == 5


@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_units_of_both_players_stay_within_their_norms(order):
    run = small_run(
        generator__max_column_norm=0.5,
        discriminator__max_column_norm=0.3,
        train__update_order=order,
        train__learning_rate=0.5,
    )
    for _ in run.train():
        for net, limit in ((run.gan.G, 0.5), (run.gan.D, 0.3)):
            for name, weight in net.named_parameters():
                if name.endswith("weight"):
                    assert weight.norm(dim=1).max() <= limit * (1 + 1e-6)
    # Of a maxout unit each piece has its own norm.
    assert len(run.gan.D.layers[0].linear.weight) == 6 * 3


def test_a_limit_that_nothing_reaches_changes_no_bit():
    plain, limited = (
        small_run(generator__max_column_norm=norm, discriminator__max_column_norm=norm)
        for norm in (None, 1e6)
    )
    for run in (plain, limited):
        assert len(list(run.train())) == 4
    assert_close(limited.state(), plain.state(), rtol=0, atol=0)


def test_given_masks_are_used_and_none_are_drawn():
    gan = build_gan(small_config(), **OF_IMAGES, device="cpu")
    x = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    before = gan.streams.dropout.get_state()
    masks = [torch.full((4, width), 2.0) for width in (16, 6, 5)]
    assert_close(gan.discriminate(x, masks), gan.D(x, masks), rtol=0, atol=0)
    assert_array_equal(gan.streams.dropout.get_state(), before)
    assert not torch.equal(gan.discriminate(x), gan.discriminate(x))  # fresh ones each time


# Precision and compilation


@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_bfloat16_stays_near_float32_for_some_steps(order):
    settings = {
        "train__update_order": order,
        "train__n_steps": 10,
        "generator__hidden": [64, 64],
        "discriminator__hidden": [32, 32],
    }
    exact = small_run(**settings)
    rounded = small_run(train__precision="bfloat16", **settings)
    pairs = list(zip(exact.train(), rounded.train(), strict=True))
    assert len(pairs) == 10
    differences = [abs(a.d_loss - b.d_loss) + abs(a.g_loss - b.g_loss) for a, b in pairs]
    assert max(differences) > 0  # the setting does something
    assert_allclose(differences, np.zeros(10), rtol=0, atol=0.02)
    assert all(p.dtype == torch.float32 for p in rounded.gan.G.parameters())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's
@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_compiled_training_is_the_same_training(order):
    settings = {"train__update_order": order, "train__n_steps": 3, "generator__batch_norm": True}
    expected = list(small_run(**settings).train())
    reports = list(small_run(train__compile=True, **settings).train())
    assert len(reports) == 3
    for ours, theirs in zip(reports, expected, strict=True):
        assert_allclose(
            [ours.d_loss, ours.g_loss], [theirs.d_loss, theirs.g_loss], rtol=1e-4, atol=0
        )


# GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
def test_initial_weights_do_not_depend_on_the_device():
    cpu, gpu = small_run(), Run(small_config(), small_images(), device="cuda")
    for name, tensor in cpu.gan.G.state_dict().items():
        assert_array_equal(gpu.gan.G.state_dict()[name].cpu(), tensor)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_a_run_on_a_gpu_goes_on_from_its_checkpoint(order, extras, tmp_path):
    cfg = small_config(train__update_order=order, train__n_steps=6, **extras)
    whole, half = (Run(cfg, small_images(), device="cuda") for _ in range(2))
    expected = list(whole.train())
    reports = list(itertools.islice(half.train(), 3))
    reports += list(through_disk(half, tmp_path, device="cuda").train())
    assert [p.step for p in reports] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(reports, expected, strict=True):
        assert_allclose(
            [ours.d_loss, ours.g_loss], [theirs.d_loss, theirs.g_loss], rtol=1e-4, atol=0
        )
