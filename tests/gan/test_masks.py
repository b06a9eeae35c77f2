"""Masks of the visible variables.  Kinds: closed form, statistics, bad input."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import binomtest, chisquare
from torch.testing import assert_close

from gan.masks import GROUPS, MASKS, TRAINED_ON, MaskTable, draw_masks, training_masks
from gan.randomness import stream

SHAPE = (1, 4, 6)


def mask(name, shape=SHAPE, n=1):
    return draw_masks(name, n, shape, stream(0, "mask")).view(n, *shape)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("left_half", slice(0, 4), slice(0, 3)),
        ("right_half", slice(0, 4), slice(3, 6)),
        ("top_half", slice(0, 2), slice(0, 6)),
        ("bottom_half", slice(2, 4), slice(0, 6)),
        ("top_left_quarter", slice(0, 2), slice(0, 3)),
        ("top_right_quarter", slice(0, 2), slice(3, 6)),
        ("bottom_left_quarter", slice(2, 4), slice(0, 3)),
        ("bottom_right_quarter", slice(2, 4), slice(3, 6)),
    ],
)
def test_a_name_says_what_is_visible(name, rows, columns):
    expected = torch.zeros(1, *SHAPE)
    expected[..., rows, columns] = 1
    assert_close(mask(name), expected, rtol=0, atol=0)
    if "quarter" in name:
        assert_close(mask(f"without_{name}"), 1 - expected, rtol=0, atol=0)


def test_the_centre_is_half_as_high_and_wide_as_the_image():
    hidden = 1 - mask("without_centre")[0, 0]
    assert hidden.sum() == 2 * 3
    assert hidden[1:3, 1:4].all()


def test_everything_and_nothing():
    assert mask("everything").all()
    assert not mask("nothing").any()
    assert not mask("label_only").any()
    assert (MASKS["label_only"].label, MASKS["nothing"].label) == (1.0, 0.0)


@pytest.mark.parametrize("percent", [25, 50, 75])
def test_random_masks_show_that_share_of_the_pixels_and_differ(percent):
    masks = mask(f"random_{percent}", (1, 28, 28), n=200)
    shown = binomtest(int(masks.sum()), masks.numel(), percent / 100)
    assert shown.pvalue > 1e-3
    assert len(masks.flatten(1).unique(dim=0)) == 200


def test_a_mask_looks_the_same_in_each_channel_of_a_block():
    masks = mask("left_half", (3, 4, 6))[0]
    assert_close(masks, masks[:1].expand_as(masks), rtol=0, atol=0)


def test_every_kind_is_scored_in_one_group_but_everything():
    names = [name for group in GROUPS.values() for name in group]
    assert sorted([*names, "everything"]) == sorted(MASKS)
    assert len(MASKS) == 19
    assert TRAINED_ON.keys() == GROUPS.keys()


def test_there_is_no_other_kind():
    with pytest.raises(KeyError, match="middle"):
        mask("middle")


def test_masks_of_a_table_are_of_its_rows_as_often_as_they_should():
    visible = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    table = MaskTable(visible, torch.tensor([0.5, 0.3, 0.2]))
    drawn = table.draw(5_000, stream(0, "masks"))
    codes = (drawn @ torch.tensor([4.0, 2.0, 1.0])).long().bincount(minlength=8)
    assert codes[[0, 2, 3, 5, 7]].sum() == 0
    assert chisquare(codes[[1, 4, 6]], [2_500, 1_500, 1_000]).pvalue > 1e-3


def test_probabilities_between_0_and_1_are_of_each_variable_on_its_own():
    table = MaskTable(torch.tensor([[0.2, 0.9]]), torch.ones(1))
    drawn = table.draw(20_000, stream(0, "masks"))
    assert_allclose(drawn.mean(0), [0.2, 0.9], rtol=0, atol=0.01)
    assert abs(np.corrcoef(drawn.T.numpy())[0, 1]) < 0.03


def training(everything, blocks):
    rng = stream(0, "blocks")
    return training_masks(SHAPE, everything=everything, blocks=blocks, rng=rng, device="cpu")


def test_groups_have_shares_of_training_by_their_weights_beside_those_that_are_given():
    table = training(0.3, 0.1)
    shares = torch.diff(table.up_to, prepend=torch.zeros(1)).tolist()
    assert math.isclose(table.up_to[-1], 1, abs_tol=1e-6)
    assert_allclose(shares[:4], [0.6 / 10 / 4] * 4, rtol=1e-5)  # the halves, of weight 1 of 10
    assert_allclose(shares[4:8], [0.6 / 5 / 4] * 4, rtol=1e-5)  # the quarters, of weight 2
    names = [name for group in GROUPS.values() for name in group]
    assert_allclose(shares[len(names)], 0.3, rtol=1e-5)
    assert_allclose(sum(shares[len(names) + 1 :]), 0.1, rtol=1e-5)


def test_all_rows_may_be_whole_images_and_their_labels_are_asked_for():
    drawn = training(1.0, 0.0).draw(100, stream(0, "masks"))
    assert drawn[:, :-1].all()
    assert not drawn[:, -1].any()


def test_blocks_are_rectangles_visible_or_hidden():
    table = training(0.0, 1.0)
    blocks = table.visible[-128:, :-1].view(-1, 4, 6)
    assert_close(blocks[0::2] + blocks[1::2], torch.ones(64, 4, 6), rtol=0, atol=0)
    for block in blocks[0::2]:
        rows, columns = block.amax(1), block.amax(0)
        assert_close(block, torch.outer(rows, columns), rtol=0, atol=0)
