"""Hub repositories, against a stand-in for the Hub that huggingface_hub finds through HF_ENDPOINT.

huggingface_hub reads its environment when it is imported, so each test runs it in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback import blackhole, closed_port, good, truncated
from loopback_hub import COMMIT, NEWER, Hub

from vggish_pt.nn.config import VGGishConfig
from vggish_pt.pretrained.folder import read_config, tensor_shapes, write_model
from vggish_pt.pretrained.hub import model_card


@pytest.fixture(scope="session")
def model_files(tmp_path_factory) -> dict[str, bytes]:
    """A small model's files."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    config = VGGishConfig(fc_width=2, name="small", license="CC0-1.0")
    write_model(folder, config, {name: np.zeros(shape, np.float16) for name, shape in tensor_shapes(config).items()})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(model_files):
    with Hub().running() as running:
        running.files = dict(model_files)
        yield running


@pytest.fixture
def run(tmp_path):
    """Runs code with huggingface_hub pointed at an address; returns the code's ``result``, or the error."""

    def call(endpoint: str, code: str, **environment: str) -> str:
        script = (
            "import sys\nfrom pathlib import Path\nfrom vggish_pt.pretrained import hub, registry\n"
            "from vggish_pt.errors import VGGishError\n"
            f"try:\n    result = {code}\n    print(result)\n"
            "except VGGishError as error:\n    print(type(error).__name__, error)\n"
        )
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VGGISH_PT_"))}
        variables |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        variables |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=variables | environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


def resolve(revision: str | None = None) -> str:
    return f"registry.resolve('user/name', revision={revision!r})"


def test_downloaded_then_cached(hub, run, model_files):
    folder = Path(run(hub.url, resolve()))
    assert {name: (folder / name).read_bytes() for name in model_files} == model_files
    assert read_config(folder).name == "small"
    gets = [path for command, path, _ in hub.requests if command == "GET" and "/resolve/" in path]
    assert len(gets) == 2
    hub.requests.clear()
    assert run(hub.url, resolve()) == str(folder)
    assert not [path for command, path, _ in hub.requests if command == "GET" and "/resolve/" in path]
    # Cut off in several ways, the copy is used.
    for endpoint, variables in (
        (closed_port(), {}),
        (hub.url, {"HF_HUB_OFFLINE": "1"}),
        (hub.url, {"VGGISH_PT_OFFLINE": "1"}),
    ):
        hub.requests.clear()
        assert run(endpoint, resolve(), **variables) == str(folder)
        assert hub.requests == []


def test_revisions(hub, run):
    hub.branches["v2"] = NEWER
    assert Path(run(hub.url, resolve("v2"))).name == NEWER
    assert Path(run(hub.url, resolve(COMMIT))).name == COMMIT
    assert run(hub.url, resolve("v3")).startswith("WeightsError user/name: has no branch, tag or commit 'v3'")


def test_cache_dir(hub, run, tmp_path):
    folder = run(hub.url, f"registry.resolve('user/name', cache_dir={str(tmp_path / 'mine')!r})")
    assert Path(folder).is_relative_to(tmp_path / "mine")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ((404, "RepoNotFound"), "WeightsError user/name: no such repository"),
        ((401, "RepoNotFound"), "WeightsError user/name: no such repository"),
        ((403, "GatedRepo"), "WeightsError user/name: access is restricted"),
        ((418, "Other"), "DownloadError user/name: the Hub refuses the download"),
    ],
)
def test_what_the_hub_refuses(hub, run, error, message):
    hub.error = error
    assert run(hub.url, resolve()).startswith(message)


def test_a_repository_without_a_model(hub, run):
    del hub.files["model.safetensors"]
    assert "holds no VGGish model (model.safetensors is missing)" in run(hub.url, resolve())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b'{"model_type": "bert"}', "not a VGGish model"),
        (b'{"model_type": "vggish", "format_version": 99}', "newer vggish_pt"),
        (b" " * (2 << 20), "more than the 1048576"),
    ],
)
def test_the_large_file_is_not_fetched_for_nothing(hub, run, config, message):
    hub.files["config.json"] = config
    assert message in run(hub.url, resolve())
    assert hub.count(f"/user/name/resolve/{COMMIT}/model.safetensors") == 0


def test_larger_than_its_configuration_allows(hub, run):
    hub.files["model.safetensors"] = bytes(48 << 20)
    assert "more than the" in run(hub.url, resolve())
    assert hub.count(f"/user/name/resolve/{COMMIT}/model.safetensors") == 0


def test_not_to_be_had_and_not_cached(hub, run):
    with blackhole() as hole:
        for endpoint, variables, why in (
            (hole, {"VGGISH_PT_CONNECT_TIMEOUT": "0.3"}, "no answer within 0.3 s"),
            (closed_port(), {}, "refused"),
            (hub.url, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
            (hub.url, {"VGGISH_PT_OFFLINE": "1"}, "VGGISH_PT_OFFLINE is set"),
        ):
            message = run(endpoint, resolve(), **variables)
            assert message.startswith("DownloadError user/name: not in the cache") and why in message
            assert "weights download user/name" in message and "\n" not in message
    assert hub.requests == []


def test_dropped_half_way(hub, run):
    data = hub.files["model.safetensors"]

    def half(handler):
        if handler.command == "HEAD":
            hub.answer(handler)
            return
        hub.routes[handler.path] = lambda again: good(data)(again) if again.command == "GET" else hub.answer(again)
        truncated(data, len(data) // 2)(handler)

    hub.routes[f"/user/name/resolve/{COMMIT}/model.safetensors"] = half
    assert (Path(run(hub.url, resolve())) / "model.safetensors").read_bytes() == data


def test_names_that_huggingface_hub_does_not_take(hub, run):
    assert run(hub.url, "registry.resolve('user/na--me')").startswith("WeightsError")
    assert hub.requests == []


@pytest.mark.parametrize("with_card", [True, False])
def test_push(hub, run, model_files, tmp_path, with_card):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in model_files.items():
        (folder / name).write_bytes(data)
    if with_card:
        (folder / "README.md").write_text("# mine\n")
    (folder / "notes.txt").write_text("not for others")
    printed = run(hub.url, f"hub.push(Path({str(folder)!r}), 'user/name', token='hf_x', private=True)")
    assert printed == f"{hub.url}/user/name/commit/{COMMIT}"
    assert hub.created.get("private") is True or hub.created.get("visibility") == "private"
    card = hub.committed.pop("README.md").decode()
    assert hub.committed == model_files
    assert card == ("# mine\n" if with_card else model_card(read_config(folder)))


def test_push_refused_or_offline(hub, run, model_files, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    push = f"hub.push(Path({str(folder)!r}), 'user/name', token='hf_x')"
    assert run(hub.url, push).startswith("CheckpointError")
    for name, data in model_files.items():
        (folder / name).write_bytes(data)
    assert run(closed_port(), push).startswith("DownloadError user/name: cannot push")
    with blackhole() as hole:
        message = run(hole, push, VGGISH_PT_CONNECT_TIMEOUT="0.3")
        assert message.startswith("DownloadError user/name: cannot push") and "no answer within 0.3 s" in message
    assert run(hub.url, push, VGGISH_PT_OFFLINE="1").startswith("WeightsError user/name: cannot push")
    assert hub.requests == []
    hub.error = (403, "Forbidden")
    assert run(hub.url, push).startswith("DownloadError user/name: the Hub refuses the upload")


def test_model_card():
    card = model_card(VGGishConfig(True, 2, 'a "name"', "MIT\nlicense: none", {"files": [{"name": "x"}]}))
    head, _, body = card.removeprefix("---\n").partition("---\n")
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(head)["license"] == "mit\nlicense: none"
    assert 'a "name"' in body and "after a final ReLU" in body and '{"files": [{"name": "x"}]}' in body
    assert "before any activation" in model_card(VGGishConfig())
