"""Bad input, each kind given to the real program: one line, an exit status, nothing lost.

In this process; what needs workers, a terminal or a full disk of its own is in test_main_line.
"""

import errno
import json
import os
import re
import shutil
import socket

import numpy as np
import pytest

from gan.checkpoint import list_checkpoints
from pipeline import training, ui
from pipeline.progress import SweepTally
from tests.full_disk import room_for
from tests.pipeline.tiny_artifacts import write_tiny
from tests.pipeline.tiny_run import bright_squares, write_extension


def files(folder):
    """Every file below a folder, and every hidden folder, with the time it was last written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() or path.name.startswith(".")
    }


def refused(gan, arguments, *, status, message):
    """Check that the command ends with `status` and one line that `message` matches in full."""
    answer = gan(*arguments)
    (line,) = answer.err.splitlines()
    assert re.fullmatch(f"error: {message}", line), line
    assert (answer.status, answer.out) == (status, "")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.n_step=5", r"base\.train\.n_step: unknown setting; did you mean n_steps\?"),
        ("trian.n_steps=5", r"base\.trian: unknown setting; did you mean train\?"),
        ("sweep.n_trails=5", r"sweep\.n_trails: unknown setting; did you mean n_trials\?"),
        ("zzz=5", r"base\.zzz: unknown setting; known: .*train.*"),
        ("train.d_steps=0", r"base\.train\.d_steps: .*greater than or equal to 1, got 0"),
        ("train.d_steps=1.5", r"base\.train\.d_steps: input should be a valid integer, got 1\.5"),
        ("train.learning_rate=-1", r"base\.train\.learning_rate: .*greater than 0, got -1"),
        ("train.learning_rate=.inf", r"base\.train\.learning_rate: .*finite.*"),
        (
            "discriminator.dropout_hidden=1",
            r"base\.discriminator\.dropout_hidden: .*less than 1.*",
        ),
        ("prior.kind=cauchy", r"base\.prior\.kind: .*'uniform'.*, got 'cauchy'"),
        ("name=a b", r"name: .*, got 'a b'"),
        ("name=../up", r"name: .*, got '\.\./up'"),
        ("promote.model=a@b", r"promote\.model: .*, got 'a@b'"),
        ("evaluation.score_every=7", r"evaluation\.score_every must be a multiple of .*, got 7"),
        ("train=3", r"base\.train: must be a mapping of settings, got 3"),
        ("sweep=", r"sweep: must be a mapping of settings, got None"),
        ("train.n_steps.x=1", r"base\.train\.n_steps\.x: .* has no settings below it"),
        ("train.n_steps={", r"train\.n_steps: not a YAML value: '\{'"),
        ("train.n_steps", r"--set takes path=value, got 'train\.n_steps'"),
        ("=3", r"--set takes path=value, got '=3'"),
        ("sweep.n_trials=0", r"sweep\.n_trials: .*greater than or equal to 1, got 0"),
        ("sweep.space.train.d_step.choice=[1]", r"sweep\.space.* train\.d_step; did you mean .*"),
        ("sweep.space.train.choice=[1]", r"sweep\.space.* train; did you mean train\.n_steps\?"),
        ("sweep.space.train.d_steps.choice=[]", r"sweep\.space.*train\.d_steps.*at least one.*"),
        ("sweep.space.train.d_steps.choice=[0]", r"sweep\.space.*train\.d_steps.*, got 0"),
        ("sweep.space.train.d_steps.guess=[1]", r"sweep\.space.*train\.d_steps.* got guess"),
        (
            "sweep.space.train.momentum.uniform=[1]",
            r"sweep\.space.*train\.momentum.*\[low, high\].*",
        ),
        ("sweep.space=[1]", r"sweep\.space: must be a mapping, got \[1\]"),
    ],
)
def test_setting_that_cannot_be_is_named(gan, here, assignment, message):
    before = files(here)
    refused(gan, ["run", "tiny.yaml", "--set", assignment], status=2, message=message)
    assert files(here) == before


def test_all_bad_settings_are_named_each_in_its_line(gan, here):
    answer = gan("run", "tiny.yaml", "--set", "train.d_steps=0", "--set", "train.batchsize=1")
    assert answer.status == 2
    assert [line.split(":")[:2] for line in answer.err.splitlines()] == [
        ["error", " base.train.d_steps"],
        ["error", " base.train.batchsize"],
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.yaml", None, r"nowhere\.yaml: No such file or directory"),
        ("folder.yaml", ..., r"folder\.yaml: Is a directory"),
        ("broken.yaml", "base: {", r"broken\.yaml is not YAML: line 1, column \d+: .*"),
        ("list.yaml", "- a", r"list\.yaml must hold settings by name, got list"),
        ("empty.yaml", "", r"empty\.yaml must hold settings by name, got none"),
        ("half.yaml", "base:\n", r"base: .*, got None"),
        ("number.yaml", "3: 4", r"3: .*"),
        ("qick", None, r"there is no preset qick; did you mean quick\?"),
    ],
)
def test_file_of_settings_that_cannot_be_read_is_named(gan, here, name, content, message):
    if content is ...:
        (here / name).mkdir()
    elif content is not None:
        (here / name).write_text(content)
    before = files(here)
    refused(gan, ["run", name], status=2, message=message)
    assert files(here) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run tiny.yaml --from nowhere", r"--from takes one of data, .*, got nowhere"),
        ("run tiny.yaml --to nowhere", r"--to takes one of data, .*, got nowhere"),
        ("run tiny.yaml --from report --to data", r"--to data comes before --from report"),
        ("run tiny.yaml --from report --to data --dry-run", r"--to data comes before .*"),
        ("sweep --resume x --set seed=1", r"a sweep that is resumed .*: leave out --set"),
        ("sweep tiny.yaml --resume x", r"a sweep that is resumed .*: leave out tiny\.yaml"),
        ("score train.npz --split train", r"--split takes valid or test, got train"),
        (
            "score train.npz --set train.n_steps=5",
            r"of samples in a file, --set takes data, evaluation, promote, got train\.n_steps=5",
        ),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(gan, here, arguments, message):
    before = files(here)
    refused(gan, arguments.split(), status=2, message=message)
    assert files(here) == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("frobnicate", "frobnicate"),
        ("run --frobnicate", "--frobnicate"),
        ("run quick mnist", "mnist"),
        ("run --set", "--set"),
        ("sample x", "--output"),
        ("sample x -o a.png -n 0", "-n"),
        ("sample x -o a.png --seed -1", "--seed"),
        ("fetch x", "DEST"),
        ("ui --port 0", "--port"),
        ("ui --port 65536", "--port"),
        ("score a.npy --n-valid 0", "--n-valid"),
    ],
)
def test_words_that_the_parser_does_not_take_are_a_usage_error(gan, here, arguments, word):
    answer = gan(*arguments.split())
    assert (answer.status, answer.out) == (2, "")
    assert word.lower() in answer.err.lower()
    assert "Traceback" not in answer.err


def _images(**arrays):
    return lambda path: np.savez(path, **arrays)


def _bytes(change):
    def write(path):
        path.write_bytes(change((path.parent / "train.npz").read_bytes()))

    return write


SQUARES = bright_squares(400, 1)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_bytes(lambda whole: whole[: len(whole) // 2]), r"cannot be read: .*"),
        (_bytes(lambda whole: whole[:5000] + b"?" + whole[5001:]), r"cannot be read: Bad CRC.*"),
        (_bytes(lambda whole: b""), r"cannot be read: it is truncated"),
        (_bytes(lambda whole: whole[:2]), r"cannot be read: it is truncated"),
        (_images(images=SQUARES, labels=np.zeros(399, int)), r".*399 labels and 400 images"),
        (_images(images=SQUARES.astype(float)), r"pixels .*in \[0, 1\], got 0\.0 to 2.*"),
        (_images(images=SQUARES / 127.5 - 1), r"pixels .*\[-1, 1\], save \(x \+ 1\) / 2"),
        (_images(images=SQUARES.astype(int) - 1), r"pixels .*in 0\.\.255, got -1 to .*"),
        (_images(images=np.full((5, 8, 8), np.nan)), r"pixels .*, got nan to nan"),
        (_images(images=np.zeros((5, 8, 8, 8, 8))), r"images must be \[n, h, w\].*"),
        (_images(images=np.zeros((0, 8, 8), np.uint8)), r"images must be .*"),
        (_images(other=SQUARES), r"must hold an array named images or .*, got \['other'\]"),
        (_images(images=np.array([{}])), r"cannot be read: .*"),
    ],
)
def test_damaged_images_are_named_and_the_earlier_stage_stays(gan, here, write, message):
    write(here / "bad.npz")
    assert gan("data", "tiny.yaml").status == 0
    before = files(here)
    refused(
        gan,
        ["data", "tiny.yaml", "--set", "data.dataset=bad.npz"],
        status=1,
        message=rf"{re.escape(str(here))}/bad\.npz: {message}",
    )
    assert files(here) == before


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.dataset=nowhere.npz", r"data\.dataset must be .*/nowhere\.npz': no such file"),
        ("data.dataset=tiny.yaml", r"data\.dataset must be .*/tiny\.yaml': not such a file"),
        ("data.n_valid=400", r"data\.n_valid must be less than the 400 images of .*, got 400"),
    ],
)
def test_data_set_that_cannot_be_is_named(gan, here, assignment, message):
    before = files(here)
    refused(gan, ["data", "tiny.yaml", "--set", assignment], status=1, message=message)
    assert files(here) == before


@pytest.mark.parametrize("test_path", ["test.npz", "null"])
def test_missing_training_images_are_told_before_missing_test_images(gan, here, test_path):
    before = files(here)
    settings = [f"data.dataset={here}/nowhere.npz", f"data.test_path={test_path}"]
    words = [word for setting in settings for word in ("--set", setting)]
    message = r"data\.dataset must be .*/nowhere\.npz': no such file"
    refused(gan, ["run", "tiny.yaml", *words], status=1, message=message)
    assert files(here) == before


@pytest.mark.parametrize("value", ["nowhere.npz", "null", "."])
def test_missing_test_images_are_told_before_the_sweep_and_not_after_it(gan, here, value):
    before = files(here)
    refused(
        gan,
        ["run", "tiny.yaml", "--set", f"data.test_path={value}"],
        status=1,
        message=r"data\.test_path must be a \.parquet or \.npz file, or a folder .* images for .*",
    )
    assert files(here) == before


@pytest.mark.parametrize("stage", ["evaluate", "promote", "report"])
def test_stage_before_its_inputs_says_what_to_run_first(gan, here, stage):
    before = files(here)
    refused(
        gan,
        [stage, "tiny.yaml"],
        status=1,
        message=rf"{stage}: \w+: it has not been run: begin with `gan run --to \w+` and .*",
    )
    refused(gan, ["run", "tiny.yaml", "--from", stage], status=1, message=rf"{stage}: .*")
    assert files(here) == before


def test_unknown_sweep_is_told_with_those_that_there_are(gan, here):
    refused(
        gan,
        ["sweep", "--resume", "x"],
        status=1,
        message="there is no sweep x; there is none in this folder",
    )
    (here / "runs" / "tiny" / "sweeps" / "tiny-1a2b").mkdir(parents=True)
    refused(gan, ["sweep", "--resume", "x"], status=1, message="there is no sweep x; .* tiny-1a2b")
    refused(
        gan, ["sweep", "--resume", "tiny-1a2b"], status=1, message=".*tiny-1a2b holds no sweep: .*"
    )


def test_folder_of_runs_that_cannot_be_made_is_named(gan, here):
    (here / "runs").write_text("a file")
    before = files(here)
    refused(gan, ["run", "tiny.yaml"], status=1, message="runs/tiny: Not a directory")
    refused(gan, ["train", "tiny.yaml"], status=1, message=".*/runs/tiny/.*: Not a directory")
    assert files(here) == before


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("nowhere.npy", r"nowhere\.npy: cannot be read: No such file or directory"),
        ("tiny.yaml", r"tiny\.yaml: samples are read from a \.npy, .*"),
        ("wide.npy", r"wide\.npy: samples must have the shape .*, \[1, 8, 8\], got \[1, 8, 9\]"),
        ("short.npy", r"short\.npy: cannot be read: .*"),
        ("signed.npy", r"signed\.npy: pixels .*, got -1\.0 to -1\.0.*"),
    ],
)
def test_samples_that_cannot_be_scored_are_named(gan, here, file, message):
    np.save(here / "wide.npy", np.zeros((5, 8, 9), np.uint8))
    np.save(here / "signed.npy", np.full((5, 8, 8), -1.0))
    (here / "short.npy").write_bytes((here / "wide.npy").read_bytes()[:-9])
    options = ["--dataset", "train.npz", "--n-valid", "100"]
    refused(gan, ["score", file, *options], status=1, message=message)


def test_test_images_that_are_not_given_are_asked_for(gan, here):
    np.save(here / "a.npy", bright_squares(5, 3))
    arguments = ["score", "a.npy", "--dataset", "train.npz", "--n-valid", "100"]
    message = r"train\.npz comes without test images: .*test_path.*"
    refused(gan, [*arguments, "--split", "test"], status=1, message=message)


def test_port_in_use_is_told(gan, here, monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *arguments: pytest.fail("a server was started"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(
            gan,
            ["ui", "--port", str(port)],
            status=1,
            message=f"port {port} is in use: choose another by `gan ui --port PORT`",
        )


def test_port_that_may_not_be_used_is_told_with_the_reason(gan, here, monkeypatch):
    def deny(self, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ui.socket.socket, "bind", deny)
    message = r"port 80 cannot be used \(Permission denied\): choose another by .*"
    refused(gan, ["ui", "--port", "80"], status=1, message=message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sample . -o a.png", r"\. is not an artifact: it has no manifest\.json"),
        (
            "sample . -o nowhere/a.png",
            r"nowhere/a\.png could not be .*: there is no folder nowhere",
        ),
        ("fetch a/b/c dest", r"expected NAME, NAME@ALIAS or NAME/VERSION, got 'a/b/c'"),
        ("fetch x .", r"\. must be a new or an empty folder, and is not empty"),
        ("fetch x tiny.yaml", r"tiny\.yaml must be a new or an empty folder, and is a file .*"),
    ],
)
def test_generator_or_destination_that_cannot_be_is_named(gan, here, arguments, message):
    before = files(here)
    refused(gan, arguments.split(), status=1, message=message)
    assert files(here) == before


@pytest.mark.mlflow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fetch x dest", r"there is no .*'x'.*: none"),
        ("sample x@best -o a.png", r"there is no .*'x'.*: none"),
    ],
)
def test_model_that_is_not_there_is_named(gan, mlflow_store, tmp_path, arguments, message):
    refused(gan, arguments.split(), status=1, message=message)
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db"}


@pytest.mark.parametrize("command", ["fetch x dest", "sample x@best -o a.png"])
def test_store_that_is_not_there_is_not_made_by_reading(gan, here, command):
    before = files(here)
    message = rf"there is no version of 'x': there is no store at sqlite:///{here}/mlflow\.db"
    refused(gan, command.split(), status=1, message=message)
    assert files(here) == before


@pytest.mark.parametrize("output", ["a.txt", "a"])
def test_kind_of_file_that_samples_are_not_written_to_is_a_usage_error(gan, here, output):
    message = rf"{output} must end in one of \.png, \.npy, \.npz"
    refused(gan, ["sample", ".", "-o", output], status=2, message=message)


@pytest.mark.mlflow
@pytest.mark.parametrize("command", ["fetch x dest", "sample x -o a.png", "train tiny.yaml"])
@pytest.mark.parametrize(
    "uri_and_reason",
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("sqlite:///{here}/tiny.yaml", "file is not a database"),
        ("nonsense://x", "unsupported URI"),
    ],
)
def test_store_that_cannot_be_used_is_named(gan, here, monkeypatch, command, uri_and_reason):
    uri, reason = (text.format(here=here) for text in uri_and_reason)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = (here / "tiny.yaml").read_bytes()
    refused(
        gan,
        command.split(),
        status=1,
        message=rf"MLflow at {re.escape(uri)} cannot be used: .*{reason}.*",
    )
    assert (here / "tiny.yaml").read_bytes() == settings
    assert not (here / "dest").exists()
    assert not (here / "a.png").exists()


@pytest.fixture
def store(mlflow_tables, here):
    """The working folder with settings, images and an empty store."""
    shutil.copyfile(mlflow_tables, here / "mlflow.db")
    return here


def train_until(gan, monkeypatch, step, *options):
    """`gan train` with a Ctrl-C at its first report from `step` on."""
    take = SweepTally.take

    def interrupt(tally, news):
        take(tally, news)
        if news.report["step"] >= step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SweepTally, "take", interrupt)
        return gan("train", "tiny.yaml", *options)


def steps_of_rest(gan, monkeypatch, *options):
    """Run `gan train` to its end; the steps that it reports."""
    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(SweepTally, "take", lambda tally, news: steps.append(news.report["step"]))
        answer = gan("train", "tiny.yaml", *options, "--json")
    assert answer.status == 0
    assert json.loads(answer.out)["step"] == 60
    return steps


def checkpoints_of(store):
    """Step -> checkpoint of the one training that there is, newest first."""
    (folder,) = store.glob("runs/tiny/runs/*/trials/0000/checkpoints")
    assert list_checkpoints(folder) == sorted(folder.iterdir())  # and nothing half-written
    return {int(path.name[-8:]): path for path in list_checkpoints(folder)[::-1]}


@pytest.mark.mlflow
def test_interrupted_training_goes_on_by_the_command_that_it_tells(gan, store, monkeypatch):
    answer = train_until(gan, monkeypatch, 50)
    assert (answer.status, answer.out) == (1, "")
    (line,) = answer.err.splitlines()
    assert line == (
        "error: stopped; what was finished stays, and `gan train tiny.yaml` goes on from there"
    )
    newest = max(checkpoints_of(store))
    assert newest >= 40
    assert steps_of_rest(gan, monkeypatch) == list(range(newest, 61, 10))


@pytest.mark.mlflow
@pytest.mark.parametrize("n_damaged", [1, 2])
def test_checkpoint_cut_short_is_told_and_the_one_before_is_taken(
    gan, store, monkeypatch, caplog, n_damaged
):
    train_until(gan, monkeypatch, 50)
    checkpoints = checkpoints_of(store)
    damaged, whole = list(checkpoints)[:n_damaged], list(checkpoints)[n_damaged:]
    assert len(damaged) == n_damaged
    for step in damaged:
        os.truncate(checkpoints[step] / "state.safetensors", 1000)
    caplog.clear()
    assert steps_of_rest(gan, monkeypatch) == list(range(whole[0] if whole else 10, 61, 10))
    warnings = [message for message in caplog.messages if "damaged" in message]
    for warning, step in zip(warnings, damaged, strict=True):
        assert warning.startswith(f"checkpoint {checkpoints[step]} is damaged: state.safetensors")
        assert warning.endswith("; falling back to the one before")


@pytest.mark.mlflow
def test_training_that_diverges_names_the_setting(gan, store, caplog):
    sets = ["--set", "train.learning_rate=1e30", "--set", "train.optimizer=sgd"]
    message = (
        r"training failed: losses must be finite, .* at step 10 .*: lower train\.learning_rate"
    )
    caplog.clear()
    refused(gan, ["train", "tiny.yaml", *sets], status=1, message=message)
    told = [line for line in caplog.messages if "autoencoder" not in line]
    assert told == []  # the cause is told once
    refused(gan, ["train", "tiny.yaml", *sets], status=1, message=message)


def test_gpu_that_is_not_there_is_named(gan, store, monkeypatch):
    monkeypatch.setattr(training.torch.cuda, "is_available", lambda: False)
    message = "device must be auto or cpu where torch finds no GPU, got cuda"
    refused(gan, ["train", "tiny.yaml", "--set", "device=cuda"], status=1, message=message)


@pytest.mark.mlflow
def test_full_disk_while_saving_leaves_whole_checkpoints_from_which_it_goes_on(
    gan, store, monkeypatch
):
    """A limit on the size of a file stands for the disk; each checkpoint is larger than it."""
    sets = ("--set", "generator.hidden=[3000]")
    train_until(gan, monkeypatch, 30, *sets)
    before = checkpoints_of(store)
    size = (store / "mlflow.db").stat().st_size + 200_000
    assert size < (next(iter(before.values())) / "state.safetensors").stat().st_size
    with room_for(size):
        refused(
            gan,
            ["train", "tiny.yaml", *sets],
            status=1,
            message=r".*could not be written: .*File too large.*",
        )
    assert checkpoints_of(store) == before
    assert steps_of_rest(gan, monkeypatch, *sets) == list(range(max(before), 61, 10))


@pytest.mark.mlflow
@pytest.mark.parametrize(
    ("address", "end"),
    [
        (
            "127.0.0.1:1",
            (1, r"the Ray cluster at 127\.0\.0\.1:1 could not .*: Connection refused"),
        ),
        ("http://head:8265", (2, r"RAY_ADDRESS must be HOST:PORT .*, got 'http://head:8265'")),
    ],
)
def test_cluster_that_cannot_be_used_is_named_and_the_sweep_can_begin_later(
    gan, store, monkeypatch, address, end
):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert gan("data", "tiny.yaml").status == 0
    answer = gan("sweep", "tiny.yaml")
    status, message = end
    assert (answer.status, answer.out) == (status, "")
    _, line = answer.err.splitlines()  # the first is of the stage before
    assert re.fullmatch(f"error: {message}", line), line
    assert not list(store.glob("runs/tiny/sweeps/*/trials/*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), r"start: the model was trained on other images than .*train\.npz: .*"),
        (
            ("inference.layers=[0, 2]",),
            r"inference\.layers must be from 0, .* to 1, .*got \[0, 2\]",
        ),
        (("inference.layers=[1, 0]",), r"inference\.layers must ascend, each once, got \[1, 0\]"),
        (("start=nowhere",), r"start: there is no model nowhere to start from .*"),
    ],
)
def test_inference_net_of_another_generator_is_refused(here, gan, settings, message):
    write_extension(here, "own", {"inference": {}})
    write_tiny(here / "generator")
    before = files(here)
    chosen = ("start=generator", *settings)
    arguments = ("extend", "own.yaml", *(f"--set={setting}" for setting in chosen))
    refused(gan, arguments, status=2, message=message)
    # The model that it would start from is laid down by its digest, to be looked at.
    assert {k for k in files(here) if not k.startswith(("runs/.starts", "mlflow"))} == set(before)


@pytest.mark.parametrize("command", ["extend", "run"])
@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("n_labels=5", r"must be at least one label for each of 10 classes, got 5"),
        ("n_labels=105", r"must be a multiple of the 10 classes, got 105"),
        ("n_labels=50000", r"must be less than the 50000 training images, got 50000"),
    ],
)
def test_labels_that_cannot_be_drawn_are_refused_and_nothing_is_written(
    here, gan, command, setting, problem
):
    before = files(here)
    arguments = (command, "semi_supervised", f"--set=semi_supervised.{setting}")
    refused(gan, arguments, status=2, message=rf"semi_supervised\.n_labels: {problem}")
    assert files(here) == before


def test_a_classifier_s_objective_is_its_own(here, gan):
    before = files(here)
    arguments = ("run", "semi_supervised", "--set=sweep.objective=parzen_ll_valid")
    message = (
        r"sweep\.objective: semi_supervised is scored by few_labels_nats, got parzen_ll_valid"
    )
    refused(gan, arguments, status=2, message=message)
    assert files(here) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "sweep.space.semi_supervised.n_labels.choice=[100, 105]",
            r"semi_supervised\.n_labels: must be a multiple of the 10 classes, got 105",
        ),
        (
            "train.batch_size=60000",
            r"train\.batch_size: must be at most the 49900 unlabelled images, got 60000",
        ),
        (
            "train.d_steps=3",
            r"train\.d_steps has no part in semi_supervised\.method feature_matching: leave it "
            r"at 1, got 3",
        ),
    ],
)
def test_trials_with_few_labels_that_could_not_be_trained_are_refused(here, gan, setting, message):
    before = files(here)
    arguments = ("sweep", "semi_supervised", f"--set={setting}")
    refused(gan, arguments, status=2, message=message)
    assert files(here) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("extensions=[inference]", "generator.hidden=[512]"),
            r"inference\.layers must be from 0, .* to 1, .*got \[0, 1, 2\]",
        ),
        (
            ("extensions=[own.yaml]",),
            r"start: there is no model mnist-inference to start from .*`gan extend inference`.*",
        ),
    ],
)
def test_extensions_that_could_not_start_are_refused_before_the_generator_is_trained(
    here, gan, settings, message
):
    section = {"method": "inference_features"}
    write_extension(here, "own", {"semi_supervised": section})
    before = files(here)
    arguments = ("run", "quick", *(f"--set={setting}" for setting in settings))
    refused(gan, arguments, status=2, message=message)
    assert files(here) == before


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        (
            "quick",
            ("vae={}", "sweep.space={}"),
            r"prior\.spherical_radius has no part in vae: leave it at unit, got sqrt_dim",
        ),
        (
            "gsn",
            ("generator.hidden=[9]",),
            r"generator\.hidden has no part in gsn: leave it at \(1200, 1200\), got \(9,\)",
        ),
        (
            "dbn",
            ("sweep.space.train.d_steps.choice=[1, 2]",),
            r"sweep\.space: train\.d_steps has no part in dbn: leave it at 1, got 2",
        ),
    ],
)
def test_settings_that_a_rival_does_not_read_are_refused(here, gan, preset, settings, message):
    before = files(here)
    arguments = ("run", preset, *(f"--set={setting}" for setting in settings))
    refused(gan, arguments, status=2, message=message)
    assert files(here) == before
