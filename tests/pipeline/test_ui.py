"""What a person sees: MLflow's pages on a finished sweep, in a real browser (contract)."""

import json
import re
import socket
import time
import urllib.error
import urllib.request

import pytest

from tests.pipeline.chromium import CHROMIUM, QUIET
from tests.pipeline.commands import gan_process, spawn
from tests.pipeline.tiny_run import write_images, write_settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.mlflow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    # Of playwright's own threads, when it is closed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder with a finished sweep, and what the command said of it."""
    folder = tmp_path_factory.mktemp("ui")
    write_settings(folder)
    write_images(folder)
    answer = gan_process("run", "tiny.yaml", "--to", "sweep", "--json", cwd=folder)
    assert answer.status == 0, answer.err
    return folder, json.loads(answer.out)


@pytest.fixture(scope="module")
def address(sweep):
    """Where `gan ui` answers on that folder."""
    folder, _ = sweep
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = spawn("ui", "--port", str(port), cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not answers(address):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "gan ui did not answer within two minutes"
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as response:  # noqa: S310 - our own server
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_sweep_is_a_parent_run_that_unfolds_into_its_trials(sweep, address, page):
    _, result = sweep
    page.goto(f"{address}/#/experiments/1/runs")
    parent = page.locator(".ag-row").filter(has_text=result["sweep"])
    parent.get_by_role("button").first.click()
    for trial in ("0000", "0001"):
        page.get_by_text(re.compile(rf"^{trial} .*d_steps=\d")).first.wait_for()


def test_trial_shows_a_grid_of_samples(sweep, address, page):
    _, result = sweep
    run_id = result["run_id"]
    page.goto(f"{address}/#/experiments/1/runs/{run_id}/artifacts/images")
    page.get_by_text(re.compile(r"^samples\+step\+60\+.*\.png$")).first.click()
    picture = page.locator("img[src*='samples'], img[src^='blob:'], .image-outer-container img")
    picture.first.wait_for()
    assert picture.first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
