"""Names → model folders: the registry, and the cache that downloads and converts into."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from loopback import Server, chunks, closed_port, good, md5, sha256, small_checkpoint, truncated

from vggish_pt.errors import CheckpointError, DownloadError, OutputError, SettingsError, WeightsError
from vggish_pt.pretrained import cache, registry
from vggish_pt.pretrained.entries import Download, Entry, Smoke
from vggish_pt.pretrained.folder import read_model, weights_digest
from vggish_pt.pretrained.verify import SUMS_NAME, differences, registry_lines

CHECKPOINT = "/v0.1/small.pth"
OFFLINE = ("VGGISH_PT_OFFLINE", "HF_HUB_OFFLINE")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in (*OFFLINE, "VGGISH_PT_MIRROR", "VGGISH_PT_MIRROR_SHA256", "VGGISH_PT_CONNECT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VGGISH_PT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server():
    with Server().running() as running:
        running.routes[CHECKPOINT] = good(small_checkpoint())
        yield running


def small_entry(url: str) -> Entry:
    place = Download(url + CHECKPOINT, sha256(small_checkpoint()))
    return Entry("small", "CC0-1.0", "made here", 20, checkpoint=(place,))


def resolve(entry: Entry, **settings) -> Path:
    return registry.resolve(entry.name, registry={entry.name: entry}, **settings)


def in_process(entry: Entry) -> list[str]:
    """Command line of a process that resolves an entry and prints the folder."""
    assert entry.checkpoint and entry.smoke is None
    code = (
        "import sys, json\n"
        "from vggish_pt.pretrained import registry\n"
        "from vggish_pt.pretrained.entries import Download\n"
        "fields, places = json.loads(sys.argv[1])\n"
        "entry = registry.Entry(**fields, checkpoint=tuple(Download(**place) for place in places))\n"
        "print(registry.resolve(entry.name, registry={entry.name: entry}))\n"
    )
    fields = {name: getattr(entry, name) for name in ("name", "license", "source", "megabytes")}
    return [sys.executable, "-c", code, json.dumps([fields, [dataclasses.asdict(p) for p in entry.checkpoint]])]


def cache_holds() -> list[str]:
    """What is in the cache besides locks."""
    return sorted(p.name for p in Path(os.environ["VGGISH_PT_CACHE"]).iterdir() if not p.name.endswith(".lock"))


# The registry itself


def test_the_packages_own_registry():
    entry = registry.entries()["audioset"]
    assert entry.license == "Apache-2.0"
    assert [(place.url.split("/")[2], place.digest) for place in (*entry.checkpoint, *entry.pca)] == [
        ("storage.googleapis.com", "md5:d1c7011e6366aa34176bb05c705e31a8"),
        ("github.com", None),
        ("storage.googleapis.com", "md5:c80cae691033abe7c7ecd11ea39fc834"),
        ("github.com", None),
    ]
    assert entry.smoke == Smoke(0.000657, 0.343, 126.0, 89.3, 0.1)


def test_embedded_weights_are_those_of_the_registry():
    embedded = [entry for entry in registry.entries().values() if entry.folder]
    assert embedded
    for entry in embedded:
        folder = registry.resolve(entry.name, local_files_only=True)
        assert entry.sha256, f"{entry.name}: the registry needs the digest of its model.safetensors"
        assert differences(folder, entry) == []
        config, _ = read_model(folder)
        assert (config.name, config.license) == (entry.name, entry.license)


def test_pca_of_the_registry_is_the_golden_one(golden_dir):
    place = registry.entries()["audioset"].pca[0]
    path = golden_dir / "vggish_pca_params.npz"
    assert (md5(path.read_bytes()), path.stat().st_size) == (place.digest, place.size)


@pytest.mark.parametrize(
    "text",
    [
        "not toml [",
        "name = 3",
        '[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1',
        '[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\nfolder = "../.."',
        '["../x"]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\nfolder = "x"',
        '[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\nfolder = "x"\nsha256 = "12"',
        '[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\nfolder = "x"\nunknown = 1',
        '[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\nfolder = "x"\nsmoke = { other = 1 }',
        '[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\n[[x.checkpoint]]\nurl = "file:///x"\ndigest = "md5:0"',
        f'[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\nfolder = "x"\nsha256 = "{"0" * 63}"',
        '[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\nfolder = "x"\n[[x.checkpoint]]\nnothing = 1',
    ],
)
def test_a_damaged_registry(tmp_path, text):
    path = tmp_path / "registry.toml"
    path.write_text(text)
    with pytest.raises(WeightsError, match=r"registry\.toml"):
        registry.read_registry(path)


@pytest.mark.parametrize("role", ["checkpoint", "pca"])
@pytest.mark.parametrize("digest", ["sha256:10086976", "md5:d1c7011e", "10086976"])
def test_a_partial_digest_in_a_registry_is_refused(tmp_path, role, digest):
    full = f'[[x.checkpoint]]\nurl = "https://host/x-10086976.pth"\ndigest = "md5:{"0" * 32}"\n'
    partial = f'[[x.{role}]]\nurl = "https://host/x-10086976.pth"\ndigest = "{digest}"\n'
    path = tmp_path / "registry.toml"
    for text, refused in ((full, False), (full + partial, True)):
        path.write_text(f'[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\n{text}')
        if refused:
            with pytest.raises(WeightsError, match=rf"registry\.toml.*'{digest}' is no full digest"):
                registry.read_registry(path)
        else:
            assert registry.read_registry(path)["x"].digest == f"md5:{'0' * 32}"


def test_the_first_source_needs_a_digest(tmp_path):
    path = tmp_path / "registry.toml"
    source = '[[x.checkpoint]]\nurl = "https://host/x-10086976.pth"\n'
    path.write_text(f'[x]\nlicense = "MIT"\nsource = "s"\nmegabytes = 1\n{source}')
    with pytest.raises(WeightsError, match="the first source of the checkpoint needs a full digest"):
        registry.read_registry(path)


# What a name can be


def test_a_folder_is_itself(tmp_path, monkeypatch):
    (tmp_path / "user" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for given in (tmp_path, str(tmp_path), "user/name", "./user", Path("user")):
        assert registry.resolve(given, local_files_only=True) == Path(given)


def test_a_name_of_the_registry_comes_before_a_folder(tmp_path, monkeypatch):
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    entry = small_entry(closed_port())
    with pytest.raises(DownloadError):
        resolve(entry)
    assert registry.resolve("./small", registry={"small": entry}) == Path("small")
    assert registry.resolve(Path("small"), registry={"small": entry}) == Path("small")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("audiose", r"did you mean 'audioset'\?"),
        ("AudioSet", r"did you mean 'audioset'\?"),
        ("zzz", "'audioset', 'synthetic', a model folder, or a Hub repository"),
        ("", "names no weights"),
        ("a\0b", "names no weights"),
        ("./not/here", "no such model folder"),
        ("/not/here", "no such model folder"),
        ("../name", "no such model folder"),
        ("a/b/c", "no such model folder"),
        ("~/not-here-either", "no such model folder"),
        ("C:\\not\\here", "no such model folder"),
        (Path("user/name"), "no such model folder"),
    ],
)
def test_what_names_nothing(given, message):
    with pytest.raises(WeightsError, match=message) as caught:
        registry.resolve(given)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_model_folder(tmp_path):
    path = tmp_path / "vggish.pth"
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match=f"vggish-pt convert {path}"):
        registry.resolve(path)


def test_no_revisions_in_the_registry():
    with pytest.raises(WeightsError, match="revision"):
        registry.resolve("audioset", revision="main")


# Downloading and converting


def test_downloaded_and_converted_once(server, tmp_path):
    entry = small_entry(server.url)
    folder = resolve(entry)
    assert folder == tmp_path / "cache" / f"small-{entry.digest[7:15]}"
    config, tensors = read_model(folder)
    assert (config.name, config.license, config.fc_width) == ("small", "CC0-1.0", 2)
    assert tensors["network.embedding.bias"].shape == (128,)
    assert cache_holds() == [folder.name]  # neither the original nor anything unfinished
    assert differences(folder) == []
    assert resolve(entry) == resolve(entry, local_files_only=True) == folder
    assert server.count(CHECKPOINT) == 1


def test_cache_dir_comes_before_the_environment(server, tmp_path):
    assert resolve(small_entry(server.url), cache_dir=tmp_path / "other").parent == tmp_path / "other"
    assert not (tmp_path / "cache").exists()


def test_cached_weights_need_no_network(server, monkeypatch):
    entry = small_entry(server.url)
    folder = resolve(entry)
    monkeypatch.setenv("VGGISH_PT_OFFLINE", "1")
    assert resolve(entry) == folder


def test_the_mirror_is_asked_first_and_must_send_the_same(server, monkeypatch):
    entry = small_entry(closed_port())
    server.routes["/institute/small.pth"] = good(small_checkpoint())
    monkeypatch.setenv("VGGISH_PT_MIRROR", f"{server.url}/institute/")
    resolve(entry)
    assert server.count("/institute/small.pth") == 1


def test_a_wrong_mirror_is_passed_over(server, monkeypatch):
    server.routes["/institute/small.pth"] = good(b"something else")
    monkeypatch.setenv("VGGISH_PT_MIRROR", f"{server.url}/institute")
    resolve(small_entry(server.url))
    assert (server.count("/institute/small.pth"), server.count(CHECKPOINT)) == (1, 1)


def test_the_mirror_must_be_an_address(monkeypatch):
    monkeypatch.setenv("VGGISH_PT_MIRROR", "/srv/mirror")
    with pytest.raises(SettingsError, match="VGGISH_PT_MIRROR"):
        resolve(small_entry("http://127.0.0.1:9"))


def test_a_digest_of_something_else(server):
    server.routes[CHECKPOINT] = good(b"not what was promised")
    with pytest.raises(DownloadError, match=r"small: .*sends another file.*Ways out"):
        resolve(small_entry(server.url))
    assert not any("small" in name and not name.endswith(".download") for name in cache_holds())


def test_the_promised_file_is_no_checkpoint(server):
    server.routes["/junk.pth"] = good(b"junk")
    entry = dataclasses.replace(
        small_entry(server.url), checkpoint=(Download(server.url + "/junk.pth", sha256(b"junk")),)
    )
    with pytest.raises(CheckpointError, match=r"junk\.pth"):
        resolve(entry)
    assert not cache.is_cached(entry)


def test_numbers_that_are_not_the_known_ones(server):
    entry = dataclasses.replace(small_entry(server.url), smoke=Smoke(1e6, 1e6, 126.0, 89.3))
    with pytest.raises(WeightsError, match=r"embedding_mean is .*, not 1e\+06; embedding_std is .*"):
        resolve(entry)
    assert not cache.is_cached(entry)


def test_an_incomplete_folder_is_made_again(server):
    entry = small_entry(server.url)
    folder = resolve(entry)
    (folder / "model.safetensors").unlink()
    assert resolve(entry) == folder
    assert differences(folder) == []


def test_a_changed_file_is_noticed(server):
    folder = resolve(small_entry(server.url))
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert differences(folder) == ["model.safetensors was changed after conversion"]
    (folder / SUMS_NAME).write_text("")
    with pytest.raises(CheckpointError, match="SHA256SUMS"):
        differences(folder)
    (folder / SUMS_NAME).unlink()
    with pytest.raises(CheckpointError, match="cannot be checked"):
        differences(folder)


# A mirror whose digest only the user knows


@pytest.fixture
def mirrored(server) -> tuple[Entry, str]:
    """An entry whose first source is gone and whose second has no digest, and the digest of that file."""
    digest = sha256(small_checkpoint()).partition(":")[2]
    server.routes[f"/small-{digest[:8]}.pth"] = good(small_checkpoint())
    gone, mirror = Download(server.url + "/gone.pth", md5(b"")), Download(f"{server.url}/small-{digest[:8]}.pth")
    return Entry("small", "CC0-1.0", "made here", 20, checkpoint=(gone, mirror)), digest


def test_a_mirror_without_a_digest_needs_the_users(server, mirrored):
    entry, digest = mirrored
    with pytest.raises(DownloadError) as caught:
        resolve(entry)
    message = str(caught.value)
    assert "404" in message and f"small-{digest[:8]}.pth: its full digest is not known here" in message
    assert "--mirror-sha256" in message and "VGGISH_PT_MIRROR_SHA256" in message and "\n" not in message
    assert [path for _, path, _ in server.requests] == ["/gone.pth"]


@pytest.mark.parametrize("how", ["argument", "prefixed", "variable"])
def test_a_mirror_is_used_with_the_users_digest(server, mirrored, monkeypatch, how):
    entry, digest = mirrored
    if how == "variable":
        monkeypatch.setenv("VGGISH_PT_MIRROR_SHA256", f" {digest.upper()}, ")
    given = {"argument": [digest], "prefixed": [f"sha256:{digest}"], "variable": []}[how]
    assert differences(resolve(entry, mirror_sha256=given), entry) == []


def test_a_forged_file_with_the_right_first_digits(server, mirrored):
    entry, digest = mirrored
    other = digest[:8] + "0" * 56  # the digest that the user was given; the server's file shares its first digits only
    with pytest.raises(DownloadError, match=f"sends another file .*expected sha256:{other}"):
        resolve(entry, mirror_sha256=[other])
    assert not cache.is_cached(entry)


@pytest.mark.parametrize("text", ["", "10086976", "0" * 63, "g" * 64, "md5:" + "0" * 32])
def test_a_users_digest_must_be_full(mirrored, text):
    with pytest.raises(SettingsError, match="must be a full SHA-256"):
        resolve(mirrored[0], mirror_sha256=[text])


def test_a_users_digest_must_belong_to_a_file(server, mirrored):
    entry, digest = mirrored
    with pytest.raises(SettingsError, match=f"0{{64}} is of no file that needs one.*small-{digest[:8]}"):
        resolve(entry, mirror_sha256=[digest, "0" * 64])
    with pytest.raises(SettingsError, match="no file needs one"):
        resolve(small_entry(server.url), mirror_sha256=[digest])
    for name in ("synthetic", "user/name", "./folder"):
        with pytest.raises(SettingsError, match="only for weights of the registry that are downloaded"):
            registry.resolve(name, mirror_sha256=[digest])
    assert server.requests == []


# Comparison with the registry


def test_the_registry_s_digest_of_the_converted_weights(server):
    entry = small_entry(server.url)
    folder = resolve(entry)
    pinned = dataclasses.replace(entry, sha256=weights_digest(folder))
    assert differences(folder, pinned) == []
    shutil.rmtree(folder)
    assert differences(resolve(pinned), pinned) == []
    other = dataclasses.replace(entry, sha256="0" * 64)
    assert differences(folder, other) == [f"model.safetensors is not the registry's, whose SHA-256 is {'0' * 64}"]
    shutil.rmtree(folder)
    with pytest.raises(
        WeightsError, match=r"small: the converted model differs from the registry.*is not the registry's"
    ):
        resolve(other)
    assert not cache.is_cached(other)


def test_forged_weights_with_sums_of_their_own(server):
    entry = small_entry(server.url)
    folder = resolve(entry)
    pinned = dataclasses.replace(entry, sha256=weights_digest(folder))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (folder / SUMS_NAME).write_text(
        "".join(f"{sha256((folder / n).read_bytes())[7:]}  {n}\n" for n in ("config.json", "model.safetensors"))
    )
    assert differences(folder) == []  # as somebody who changes the weights would leave it
    assert "is not the registry's" in differences(folder, pinned)[0]


def test_converted_from_other_files_than_the_registry_s(server):
    entry = small_entry(server.url)
    folder = resolve(entry)
    same_name = dataclasses.replace(entry, checkpoint=(Download(server.url + CHECKPOINT, sha256(b"other")),))
    assert differences(folder, same_name) == ["converted from another small.pth than the registry's"]
    other_name = dataclasses.replace(entry, checkpoint=(Download(server.url + "/other.pth", entry.digest),))
    assert differences(folder, other_name) == ["converted from small.pth, which is no source of small in the registry"]


def test_lines_that_pin_an_entry(server, tmp_path):
    entry = small_entry(server.url)
    folder = resolve(entry)
    lines = registry_lines(folder, entry)
    assert lines.splitlines()[0] == "[small]"
    assert f"# converted from small.pth, {sha256(small_checkpoint())}" in lines
    fields = 'license = "CC0-1.0"\nsource = "made here"\nmegabytes = 20\n'
    source = f'[[small.checkpoint]]\nurl = "{entry.checkpoint[0].url}"\ndigest = "{entry.digest}"\n'
    path = tmp_path / "registry.toml"
    path.write_text(f"{lines}\n{fields}{source}")
    assert differences(folder, registry.read_registry(path)["small"]) == []


def test_two_processes_at_once_download_once(server):
    entry = small_entry(server.url)
    processes = [subprocess.Popen(in_process(entry), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert printed == {str(cache.location(entry))}
    assert server.count(CHECKPOINT) == 1


def test_killed_half_way(server):
    entry = small_entry(server.url)
    data = small_checkpoint()
    sending = threading.Event()

    def half_and_wait():
        yield data[: len(data) // 2]
        sending.set()
        threading.Event().wait(60)

    server.routes[CHECKPOINT] = chunks(half_and_wait())
    process = subprocess.Popen(in_process(entry))
    assert sending.wait(60)
    downloads = cache.location(entry).with_name(f"{cache.location(entry).name}.download")
    while not any(part.stat().st_size for part in downloads.glob("tmp*")):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not cache.is_cached(entry)
    stale = cache.location(entry).with_name(f".{cache.location(entry).name}.left.tmp")
    stale.mkdir()  # as a process killed while converting leaves it
    server.routes[CHECKPOINT] = good(data)
    folder = resolve(entry)
    assert differences(folder) == []
    assert cache_holds() == [folder.name]


def test_a_file_where_the_cache_should_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cache cannot be written.*VGGISH_PT_CACHE"):
        resolve(small_entry(server.url), cache_dir=tmp_path / "file" / "cache")


# Without a network


@pytest.mark.parametrize("how", [*OFFLINE, "local_files_only", "refused"])
def test_offline_with_nothing_cached(server, monkeypatch, how):
    entry = small_entry(closed_port() if how == "refused" else server.url)
    if how in OFFLINE:
        monkeypatch.setenv(how, "1")
    with pytest.raises(DownloadError) as caught:
        resolve(entry, local_files_only=how == "local_files_only")
    message = str(caught.value)
    assert how in message and "\n" not in message
    for way in (
        "vggish-pt weights download small",
        "vggish-pt weights path small",
        str(cache.location(entry)),
        "vggish-pt convert",
        "VGGISH_PT_MIRROR",
        "--weights synthetic",
    ):
        assert way in message
    assert server.requests == []


def test_a_folder_copied_from_another_machine(server, monkeypatch, tmp_path):
    entry = small_entry(server.url)
    folder = resolve(entry)
    monkeypatch.setenv("VGGISH_PT_OFFLINE", "1")
    monkeypatch.setenv("VGGISH_PT_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(DownloadError) as caught:
        resolve(entry)
    target = re.search(r"prints there to (\S+) here", str(caught.value))[1]
    shutil.copytree(folder, target)
    assert resolve(entry) == Path(target)
    assert differences(Path(target)) == []


def test_offline_imports_no_torch():
    code = (
        "import sys\nfrom vggish_pt.pretrained import registry\nfrom vggish_pt.errors import DownloadError\n"
        "try: registry.resolve('audioset')\nexcept DownloadError: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"VGGISH_PT_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


# The whole way, with a checkpoint of Google's format and size, and numbers that Google's code gave


def test_golden_checkpoint_from_a_server(server, golden_dir, golden_v1, tmp_path):
    data = golden_v1.read_bytes()
    pca = (golden_dir / "vggish_pca_params.npz").read_bytes()
    server.routes["/vggish_model.ckpt"] = truncated(data, len(data) // 2)
    server.routes["/mirror/vggish_model.ckpt"] = good(data)
    server.routes["/mirror/vggish_pca_params.npz"] = good(pca)
    with np.load(golden_dir / "golden.npz") as golden:
        embedding, post = golden["sine_1khz_3s/embedding"], golden["sine_1khz_3s/postprocessed"]
    entry = Entry(
        "golden",
        "Apache-2.0",
        "random weights",
        289,
        checkpoint=tuple(
            Download(f"{server.url}{folder}/vggish_model.ckpt", md5(data), len(data)) for folder in ("", "/mirror")
        ),
        pca=tuple(Download(f"{server.url}{folder}/vggish_pca_params.npz", md5(pca)) for folder in ("", "/mirror")),
        smoke=Smoke(embedding.mean(), embedding.std(), post.mean(), post.std(), tolerance=0.001),
    )
    folder = resolve(entry)
    assert differences(folder, entry) == []
    wrong = dataclasses.replace(entry.smoke, postprocessed_mean=126.0)
    assert "postprocessed_mean is 137" in differences(folder, dataclasses.replace(entry, smoke=wrong))[0]
    with contextlib.suppress(FileNotFoundError):
        (folder / "model.safetensors").unlink()  # 289 MB
