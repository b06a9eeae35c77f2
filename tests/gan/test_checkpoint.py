"""Checkpoints and what damages them.  Kind: algorithm."""

import errno
import hashlib
import json
import logging
import math
import os

import pytest
import torch

from gan.checkpoint import (
    MANIFEST,
    META,
    TENSORS,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    part_of,
    prune_checkpoints,
    save_checkpoint,
)
from gan.errors import CheckpointError
from tests.full_disk import room_for
from tests.gan.bombs import pickled_weights


def tensors(step):
    rng = torch.Generator().manual_seed(step)
    return {
        "weights": torch.randn(40, 30, generator=rng),
        "transposed": torch.randn(3, 4, generator=rng).T,
        "parameter": torch.nn.Parameter(torch.randn(2, generator=rng)),
        "step": torch.tensor(step),
        "stream": rng.get_state(),
        "nothing": torch.empty(0, dtype=torch.int64),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }


def save(folder, *steps):
    return [
        save_checkpoint(folder, step=step, tensors=tensors(step), meta={"score": step / 10})
        for step in steps
    ]


def steps_in(folder):
    return [int(path.name.removeprefix("step_")) for path in list_checkpoints(folder)]


def test_a_checkpoint_holds_every_tensor_bit_for_bit_and_the_callers_values(tmp_path):
    (path,) = save(tmp_path / "new" / "folder", 1_000)
    checkpoint = load_checkpoint(path)
    assert checkpoint.step == 1_000
    assert checkpoint.meta == {"score": 100.0}
    assert checkpoint.path == path == checkpoint_path(tmp_path / "new" / "folder", step=1_000)
    assert checkpoint.tensors.keys() == tensors(1_000).keys()
    for name, tensor in tensors(1_000).items():
        assert checkpoint.tensors[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.tensors[name], tensor.detach())


def test_the_callers_values_may_be_any_json_not_only_finite_numbers(tmp_path):
    meta = {"history": [{"score": math.inf}], "name": "\N{GREEK SMALL LETTER SIGMA}"}
    path = save_checkpoint(tmp_path, step=1, tensors={}, meta=meta)
    assert load_checkpoint(path).meta == meta


def test_a_checkpoint_is_three_files_without_pickle(tmp_path):
    (path,) = save(tmp_path, 5)
    assert sorted(file.name for file in path.iterdir()) == sorted([TENSORS, META, MANIFEST])
    digests = json.loads((path / MANIFEST).read_text())
    assert digests.keys() == {TENSORS, META}
    assert json.loads((path / META).read_text())["step"] == 5


def test_a_part_has_the_names_behind_its_prefix_and_no_others():
    whole = {name: torch.ones(i) for i, name in enumerate(["G/G/w", "G2/w", "D/G/w", "G", "G/b"])}
    part = part_of(whole, "G/")
    assert part.keys() == {"G/w", "b"}
    assert part["G/w"] is whole["G/G/w"]
    assert part["b"] is whole["G/b"]


def test_a_step_saved_again_replaces_the_first(tmp_path):
    save(tmp_path, 1)
    save_checkpoint(tmp_path, step=1, tensors={"x": torch.zeros(1)}, meta={})
    assert load_checkpoint(tmp_path / "step_00000001").tensors.keys() == {"x"}
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_the_newest_is_the_one_of_the_highest_step(tmp_path):
    save(tmp_path, 900, 1_000, 20, 100_000)
    assert steps_in(tmp_path) == [20, 900, 1_000, 100_000]
    assert load_newest(tmp_path).step == 100_000


# Damage


def cut_tensors(path):
    content = (path / TENSORS).read_bytes()
    (path / TENSORS).write_bytes(content[: len(content) // 2])


def empty_tensors(path):
    (path / TENSORS).write_bytes(b"")


def flip_a_byte(path):
    content = bytearray((path / TENSORS).read_bytes())
    content[-10] ^= 1
    (path / TENSORS).write_bytes(bytes(content))


def cut_meta(path):
    (path / META).write_text((path / META).read_text()[:-3])


def change_meta(path):
    (path / META).write_text((path / META).read_text().replace("0.2", "0.9"))


def cut_manifest(path):
    (path / MANIFEST).write_text((path / MANIFEST).read_text()[:30])


def manifest_of_another_form(path):
    (path / MANIFEST).write_text("[1, 2]")


def manifest_without_a_file(path):
    (path / MANIFEST).write_text("{}")


def manifest_that_is_not_text(path):
    (path / MANIFEST).write_bytes(b"\xff\xfe\x00")


def remove(name):
    def damage(path):
        (path / name).unlink()

    damage.__name__ = f"remove_{name}"
    return damage


DAMAGES = [
    cut_tensors,
    empty_tensors,
    flip_a_byte,
    cut_meta,
    change_meta,
    cut_manifest,
    manifest_of_another_form,
    manifest_without_a_file,
    manifest_that_is_not_text,
    remove(TENSORS),
    remove(META),
    remove(MANIFEST),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path, caplog, damage
):
    _, newest = save(tmp_path, 1, 2)
    damage(newest)
    with pytest.raises(CheckpointError, match="step_00000002 is damaged: "):
        load_checkpoint(newest)
    with caplog.at_level(logging.WARNING, logger="gan.checkpoint"):
        checkpoint = load_newest(tmp_path)
    assert checkpoint.step == 1
    assert torch.equal(checkpoint.tensors["weights"], tensors(1)["weights"])
    (record,) = caplog.records
    assert "step_00000002 is damaged" in record.getMessage()
    assert "falling back to the one before" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_there_is_no_newest_where_none_is_whole(tmp_path, caplog):
    for path in save(tmp_path, 1, 2, 3):
        flip_a_byte(path)
    assert load_newest(tmp_path) is None
    assert len(caplog.records) == 3


def test_there_is_no_newest_where_there_is_none(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "missing") is None


def test_a_scratch_folder_is_no_checkpoint(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".step_00000002.0a1b2c3d").mkdir()
    assert load_newest(tmp_path).step == 1


# Content that nobody here would have written


def rewrite(path, name, content):
    """Replace a file of a checkpoint, with its digest."""
    (path / name).write_bytes(content)
    digests = json.loads((path / MANIFEST).read_text())
    digests[name] = hashlib.sha256(content).hexdigest()
    (path / MANIFEST).write_text(json.dumps(digests))


def test_pickled_tensors_are_refused_and_not_opened_though_their_digest_is_right(tmp_path):
    (path,) = save(tmp_path / "checkpoints", 1)
    rewrite(path, TENSORS, pickled_weights(tmp_path / "trace"))
    with pytest.raises(CheckpointError, match="step_00000001 is damaged: "):
        load_checkpoint(path)
    assert load_newest(tmp_path / "checkpoints") is None
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", ["[1, 2]", "7", "null", "{}", '{"step": "x"}', '{"step": []}'])
def test_facts_of_another_form_are_damage_though_their_digest_is_right(tmp_path, content):
    (path,) = save(tmp_path, 1)
    rewrite(path, META, content.encode())
    with pytest.raises(CheckpointError, match="step_00000001 is damaged: "):
        load_checkpoint(path)


# A full disk


ROOM = 4_096
"""In bytes: the weights of `tensors` need more."""


def require_only_the_first(folder):
    assert [path.name for path in folder.iterdir()] == ["step_00000001"]
    assert load_newest(folder).step == 1


@pytest.fixture
def folder_with_one(tmp_path):
    save(tmp_path, 1)
    return tmp_path


def test_a_full_disk_while_saving_leaves_the_earlier_ones_whole_and_no_scratch(
    folder_with_one,
):
    message = "step_00000002 could not be written: File too large; the ones before it are whole"
    with room_for(ROOM), pytest.raises(CheckpointError, match=message):
        save(folder_with_one, 2)
    require_only_the_first(folder_with_one)


def test_a_full_disk_while_a_step_is_saved_again_leaves_the_first(folder_with_one):
    with (
        room_for(ROOM),
        pytest.raises(CheckpointError, match="step_00000001 could not be written"),
    ):
        save(folder_with_one, 1)
    require_only_the_first(folder_with_one)


def test_a_flush_that_finds_the_disk_full_leaves_the_earlier_ones_whole_and_no_scratch(
    folder_with_one, monkeypatch
):
    def fail(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match="No space left on device; the ones before it are"):
        save(folder_with_one, 2)
    require_only_the_first(folder_with_one)


def test_a_folder_that_cannot_be_made_is_a_checkpoint_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="could not be written: File exists"):
        save(tmp_path / "file", 1)


# Retention


@pytest.mark.parametrize(
    ("keep", "also", "left"),
    [
        (2, [], [4, 5]),
        (2, [2], [2, 4, 5]),
        (1, [5], [5]),
        (1, [1, 3], [1, 3, 5]),
        (9, [], [1, 2, 3, 4, 5]),
    ],
)
def test_pruning_keeps_the_newest_and_the_best(tmp_path, keep, also, left):
    save(tmp_path, 1, 2, 3, 4, 5)
    prune_checkpoints(tmp_path, step=5, keep=keep, also=also)
    assert steps_in(tmp_path) == left


def test_pruning_keeps_what_was_just_written_and_not_the_damaged_that_were_passed_over(tmp_path):
    _, _, damaged = save(tmp_path, 50, 100, 200)
    flip_a_byte(damaged)
    assert load_newest(tmp_path).step == 100
    save(tmp_path, 150)
    prune_checkpoints(tmp_path, step=150, keep=1, also=[100])
    assert steps_in(tmp_path) == [100, 150]
    assert load_newest(tmp_path).step == 150


def test_pruning_removes_what_a_killed_process_left_half_written(tmp_path):
    save(tmp_path, 1)
    scratch = tmp_path / ".step_00000002.0a1b2c3d"
    scratch.mkdir()
    (scratch / TENSORS).write_bytes(b"half")
    prune_checkpoints(tmp_path, step=1, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
