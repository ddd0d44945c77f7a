"""``vggish-pt weights`` in process, and through the entry point where exit codes and imports matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest
from loopback import Server, good, sha256, small_checkpoint
from typer.testing import CliRunner

from vggish_pt.cli.weights import app
from vggish_pt.errors import DownloadError, SettingsError, WeightsError
from vggish_pt.pretrained import cache, registry
from vggish_pt.pretrained.entries import Download, Entry, Smoke
from vggish_pt.pretrained.folder import weights_digest


@pytest.fixture
def entry(monkeypatch, tmp_path):
    """An entry named "small", the only one, served from loopback."""
    monkeypatch.setenv("VGGISH_PT_CACHE", str(tmp_path / "cache"))
    for name in ("VGGISH_PT_OFFLINE", "HF_HUB_OFFLINE", "VGGISH_PT_MIRROR", "VGGISH_PT_MIRROR_SHA256"):
        monkeypatch.delenv(name, raising=False)
    with Server().running() as server:
        server.routes["/small.pth"] = good(small_checkpoint())
        place = Download(f"{server.url}/small.pth", sha256(small_checkpoint()))
        made = Entry("small", "CC0-1.0", "made here", 20, checkpoint=(place,))
        monkeypatch.setattr(registry, "entries", lambda: {"small": made})
        yield made


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def entry_point(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from vggish_pt.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | environment, capture_output=True, text=True
    )


def test_from_nothing_to_verified(entry):
    assert "small  (not downloaded)" in invoke("list")
    assert invoke("verify") == "small: not downloaded\n"
    folder = invoke("download", "small").strip()
    assert folder == str(cache.location(entry)) == invoke("path", "small").strip()
    assert "small  (downloaded)" in invoke("list")
    unknown = "small: unchanged since conversion; the registry has no digest of the converted weights\n"
    assert invoke("verify") == invoke("verify", "small") == unknown


def test_list_as_json(entry):
    (row,) = json.loads(invoke("list", "--json"))
    assert (row["name"], row["license"], row["digest"], row["available"]) == (
        "small",
        "CC0-1.0",
        entry.digest,
        False,
    )
    assert row["checkpoint"][0]["url"] == entry.checkpoint[0].url
    assert row["path"] == str(cache.location(entry))


def test_the_packages_own_list():
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json"))}
    assert rows["audioset"]["digest"] == "md5:d1c7011e6366aa34176bb05c705e31a8"
    for name, row in rows.items():
        assert name in invoke("list") and row["license"] in invoke("list")


def test_path_and_verify_of_what_is_not_here(entry):
    for command in ("path", "verify"):
        with pytest.raises(DownloadError, match="vggish-pt weights download small"):
            invoke(command, "small")
    with pytest.raises(WeightsError, match="not in the registry"):
        invoke("verify", "other")


def test_verify_finds_damage(entry):
    folder = registry.resolve("small")
    with (folder / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(WeightsError, match=f"damaged: {folder}"):
        invoke("verify")


def test_verify_compares_with_the_registry(entry, monkeypatch):
    folder = registry.resolve("small")
    pinned = Entry(**{**vars(entry), "sha256": weights_digest(folder)})
    monkeypatch.setattr(registry, "entries", lambda: {"small": pinned})
    assert invoke("verify") == "small: as in the registry\n"
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b" ")
    result = CliRunner().invoke(app, ["verify"])
    assert "model.safetensors is not the registry's" in result.stdout and isinstance(result.exception, WeightsError)


def test_verify_prints_what_a_maintainer_commits(entry):
    folder = registry.resolve("small")
    pinned = tomllib.loads(invoke("verify", "small", "--pin"))
    assert pinned == {"small": {"sha256": weights_digest(folder)}}
    with (folder / "config.json").open("a") as file:
        file.write(" ")
    result = CliRunner().invoke(app, ["verify", "--pin"])
    assert result.stdout == "" and isinstance(result.exception, WeightsError)


def test_download_with_the_digest_of_a_mirror(entry, monkeypatch):
    digest = entry.digest.partition(":")[2]
    with Server().running() as server:
        server.routes[f"/small-{digest[:8]}.pth"] = good(small_checkpoint())
        gone = Download(f"{server.url}/small.pth", entry.digest)
        mirror = Download(f"{server.url}/small-{digest[:8]}.pth")
        mirrored = Entry("small", "CC0-1.0", "made here", 20, checkpoint=(gone, mirror))
        monkeypatch.setattr(registry, "entries", lambda: {"small": mirrored})
        with pytest.raises(DownloadError, match="--mirror-sha256"):
            invoke("download", "small")
        with pytest.raises(SettingsError, match="must be a full SHA-256"):
            invoke("download", "small", "--mirror-sha256", digest[:8])
        assert invoke("download", "small", "--mirror-sha256", digest).strip() == str(cache.location(mirrored))


def test_verify_runs_the_model(entry, monkeypatch):
    registry.resolve("small")
    wrong = Entry(**{**vars(entry), "smoke": Smoke(1e6, 1e6, 1e6, 1e6)})
    monkeypatch.setattr(registry, "entries", lambda: {"small": wrong})
    result = CliRunner().invoke(app, ["verify", "small"])
    assert "embedding_mean" in result.stdout and isinstance(result.exception, WeightsError)


def test_one_line_and_exit_code_1_when_cut_off(tmp_path):
    done = entry_point("weights", "download", "audioset", VGGISH_PT_OFFLINE="1", VGGISH_PT_CACHE=str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("vggish-pt: audioset: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["path", "audioset"], ["download", "audioset"]])
def test_no_torch(tmp_path, command):
    code = (
        "import sys, atexit\nfrom vggish_pt.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "weights", *command],
        env=os.environ | {"VGGISH_PT_OFFLINE": "1", "VGGISH_PT_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == "False"
