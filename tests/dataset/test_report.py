"""The report of a dump: what it tells, what it does in a browser, and that nothing in a dump can harm its reader."""

from __future__ import annotations

import json
import re
import shutil
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from dump_folders import done, failed, make_schema, write_file, write_folder

from vggish_pt import OutputError, OutputWarning, SettingsError, read_dataset
from vggish_pt.dataset.report import write_report
from vggish_pt.dataset.report.charts import histogram, throughput
from vggish_pt.dataset.report.colours import colourings
from vggish_pt.dataset.report.gather import gather
from vggish_pt.dataset.report.map import project

HOSTILE = "a/</script><img src=x onerror=document.title='pwned'>\"'&<!--\u2028.wav"


def data_of(page: Path) -> dict:
    """What the page's script gets."""
    text = page.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(found)


def embeddings(rng, count, centre=0.0, rows=3):
    return [(centre + rng.normal(size=(rows, 128))).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder with sounds in it and a dump of them, the last of which is no file any more."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    inputs = []
    for i in range(24):
        kind = ["dog", "cat", "rain"][i % 3]
        path = folder / "sounds" / kind / f"#{i:02d} ä.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < 23:
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes((rng.normal(size=48000) * 3000).astype("<i2").tobytes())
        values = embeddings(rng, 1, 3 * (i % 3), 2 + i % 3)[0]
        told = {"label": kind, "loudness": float(i), "id": f"id{i}"}
        inputs.append(done(f"sounds/{kind}/#{i:02d} ä.wav", values, i, told))
    inputs.append(done(HOSTILE, embeddings(rng, 1)[0], 24, {"label": HOSTILE}))
    failures = [failed(f"bad/{i}.wav", kind="AudioError" if i % 4 else "WorkerError") for i in range(8)]
    failures.append(failed(HOSTILE, HOSTILE))
    columns = pa.schema([("label", pa.string()), ("loudness", pa.float64()), ("id", pa.string())])
    write_folder(folder / "dump", [*inputs, *failures], make_schema(columns=columns), parts=3, sessions=2)
    return folder


@pytest.fixture(scope="module")
def page(sounds):
    (sounds / "pages").mkdir()
    return write_report(sounds / "dump", sounds / "pages" / "report.html", sounds=sounds)


def test_what_the_page_tells(page):
    text = page.read_text(encoding="utf-8")
    for told in (
        "complete, 9 failed",
        "<dd>25</dd>",
        "audioset",
        "ab" * 32,
        "<h2>Throughput</h2>",
        "<h2>Sessions</h2>",
    ):
        assert told in text, told
    assert "resumed 1 times, at the dashed lines" in text or "resumed" in text
    assert text.count("<tr>") > 9
    assert re.search(r"<td>AudioError</td><td class=\"number\">7</td>", text)
    data = data_of(page)
    assert len(data["names"]) == len(data["sounds"]) == len(data["windows"]) == 25
    assert [each["name"].partition(",")[0] for each in data["layouts"]] == ["t-SNE", "PCA"]
    assert all(len(each["points"]) == 50 for each in data["layouts"])
    assert all(0 <= value <= 10000 for each in data["layouts"] for value in each["points"])
    ways = {way["name"]: way for way in data["colours"]}
    assert list(ways) == ["label", "folder", "first folder", "loudness", "seconds of audio"]
    assert ways["label"]["classes"][:3] == ["dog", "cat", "rain"] and ways["label"]["counts"][:3] == [8, 8, 8]
    assert ways["folder"]["classes"][:2] == ["sounds/dog", "sounds/cat"]
    assert ways["loudness"]["values"][:2] == [0.0, 1.0] and ways["loudness"]["values"][24] is None


def test_sounds_are_found_from_the_page(page, sounds):
    found = data_of(page)["sounds"]
    assert found[0] == "../sounds/dog/%2300%20%C3%A4.wav"
    assert found[23:] == [1, 1]  # no such file
    inputs = [
        done(str(sounds / "sounds" / "dog" / "#00 ä.wav"), embeddings(np.random.default_rng(0), 1)[0]),
        *(
            done(name, embeddings(np.random.default_rng(0), 1)[0])
            for name in ("https://x.org/a b'.wav", "s3://bucket/a.wav", "x.tar::a.wav", "javascript:alert(1)", "a\0b")
        ),
        *(done(name, embeddings(np.random.default_rng(0), 1)[0]) for name in ("http://x.org/a%20b.wav", "../" * 2000)),
    ]
    write_file(sounds / "other.parquet", inputs)
    other = data_of(write_report(sounds / "other.parquet", sounds / "other.html", sounds=sounds))
    assert other["sounds"] == [
        (sounds / "sounds" / "dog" / "#00 ä.wav").as_uri(),
        3,
        3,
        2,
        1,
        1,
        "http://x.org/a%20b.wav",
        1,
    ]
    assert len(other["names"][-1]) < 402


def test_the_same_dump_gives_the_same_page(page, sounds):
    again = write_report(sounds / "dump", sounds / "pages" / "again.html", sounds=sounds)
    assert again.read_bytes() == page.read_bytes()
    other = write_report(sounds / "dump", sounds / "pages" / "other.html", sounds=sounds, seed=1, max_files=20)
    assert len(data_of(other)["names"]) == 20 and "a random sample of 25" in other.read_text(encoding="utf-8")


def test_means_are_those_of_the_files(sounds):
    dataset = read_dataset(sounds / "dump")
    facts = gather(dataset, max_files=10, seed=3)
    table = dataset.table(["path"])["path"].to_pylist()
    assert (facts.files, facts.windows, len(facts.sample.paths)) == (25, len(dataset), 10)
    for path, mean, windows, seconds in zip(
        facts.sample.paths, facts.sample.values, facts.sample.windows, facts.sample.seconds, strict=True
    ):
        rows = [i for i, name in enumerate(table) if name == path]
        np.testing.assert_allclose(mean, dataset.embedding[rows].astype(float).mean(axis=0))
        assert windows == len(rows) and seconds == pytest.approx(0.96 * (len(rows) - 1) + 0.975)
    assert len(facts.lengths) == 25 and facts.seconds == pytest.approx(sum(0.96 * n + 0.015 for n in _counts(table)))


def _counts(names):
    return [names.count(name) for name in dict.fromkeys(names)]


def test_nothing_in_a_dump_becomes_markup(page):
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert HOSTILE in data_of(page)["names"]
    inside = re.search(r'id="data">(.*?)</script>', text, flags=re.DOTALL)[1]
    assert not re.search("[<>&\u2028\u2029]", inside)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'sha256-" in policy
    assert text.count("<script") == 2 and not re.search(r"<[^>]+ (?:on\w+|style)=", text)
    tags = " ".join(re.findall(r"<[a-z][^>]*>", text))
    assert set(re.findall(r"(?:src|href)=\"([^\"]*)\"", tags)) == {"#map", "data:,"}


def test_kinds_of_dumps(tmp_path):
    """Quantised, pooled, of another layer, of parts of files, of one file, of nothing, unfinished, of single files."""
    rng = np.random.default_rng(1)

    def told(name):
        page = write_report(tmp_path / name, tmp_path / f"{Path(name).name}.html")
        return page.read_text(encoding="utf-8"), data_of(page)

    quantised = [done(f"{i}.wav", rng.integers(0, 256, (2, 128), dtype=np.uint8)) for i in range(6)]
    write_folder(tmp_path / "q", quantised, make_schema(dtype="uint8", postprocess="uint8"))
    assert len(told("q")[1]["names"]) == 6
    write_folder(tmp_path / "m", named(embeddings(rng, 6, rows=1)), make_schema(pool="mean"))
    text, data = told("m")
    assert data["pooled"] and "a row for each file" in text
    maps = [done(f"{i}.wav", rng.normal(size=(2, 512, 6, 4)).astype(np.float32)) for i in range(6)]
    write_folder(tmp_path / "l", maps, make_schema((512, 6, 4), layer="conv4"))
    assert "512 × 6 × 4" in told("l")[0]
    np.testing.assert_allclose(
        gather(read_dataset(tmp_path / "l"), max_files=9, seed=0).sample.values[2],
        maps[2].rows.embedding.astype(float).mean(axis=(0, 2, 3)),
    )
    segments = pa.schema([("segment_start", pa.float64()), ("segment_end", pa.float64())])
    parts = [done("a.wav", embeddings(rng, 1)[0], i, start=10.0 * i, end=10.0 * i + 3) for i in range(3)]
    write_folder(tmp_path / "s", [*parts, done("b.wav", embeddings(rng, 1)[0])], make_schema(columns=segments))
    assert told("s")[1]["parts"] == [[0.0, 3.0], [10.0, 13.0], [20.0, 23.0], None]
    write_folder(tmp_path / "one", [done("a.wav", embeddings(rng, 1)[0])])
    assert told("one")[1]["layouts"] == [{"name": "PCA", "points": [5000, 5000]}]
    write_folder(tmp_path / "same", [done(f"{i}.wav", np.ones((1, 128), np.float32)) for i in range(7)])
    assert set(told("same")[1]["layouts"][0]["points"]) == {5000}
    odd = named(embeddings(rng, 7))
    odd[3].rows.embedding[0, 0] = np.nan
    write_folder(tmp_path / "nan", odd)
    assert told("nan")[1]["layouts"][0]["points"][6:8] == [None, None]
    write_folder(tmp_path / "none", [failed("a.wav"), failed("b.wav")])
    text, data = told("none")
    assert "nothing embedded" in text and "None of the files could be embedded" in text and data == {}
    write_folder(tmp_path / "open", odd, finish=False)
    with pytest.warns(OutputWarning):
        assert "This run is not finished" in told("open")[0]
    for name in ("x.parquet", "x.npz", "x.npy"):
        write_file(
            tmp_path / name, [done(f"{i}.wav", v) for i, v in enumerate(embeddings(rng, 7))], failures=[failed("b")]
        )
        text, data = told(name)
        assert len(data["names"]) == 7 and "complete, 1 failed" in text
    np.save(tmp_path / "bare.npy", np.concatenate(embeddings(rng, 4)))
    text, data = told("bare.npy")
    assert data["names"][:2] == ["row 0", "row 1"] and "not known" in text


def named(values):
    return [done(f"{i}.wav", each) for i, each in enumerate(values)]


def test_a_large_dump_gives_a_small_page(tmp_path):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40, 1, 128)).astype(np.float32)
    inputs = [done(f"{'x' * 300}/{i:06d}.wav", values[i % 40]) for i in range(6000)]
    inputs += [failed(f"{'y' * 5000}{i}", "z" * 5000) for i in range(1500)]
    write_folder(tmp_path / "x", inputs, make_schema(pool="mean"))
    page = write_report(tmp_path / "x", tmp_path / "x.html", max_files=400)
    assert page.stat().st_size < 1.5e6
    text = page.read_text(encoding="utf-8")
    assert "The first 1,000 of 1,500" in text and "400 files, a random sample of 6,000" in text


def test_what_cannot_be_written(page, sounds, tmp_path):
    with pytest.raises(OutputError, match="exists already"):
        write_report(sounds / "dump", page)
    with pytest.raises(OutputError, match="holds no embeddings"):
        write_report(tmp_path, tmp_path / "x.html")
    with pytest.raises(SettingsError, match="max_files"):
        write_report(sounds / "dump", tmp_path / "x.html", max_files=0)
    assert list(tmp_path.iterdir()) == []


def test_neighbours_stay_neighbours():
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(4, 128)) * 3
    kinds = np.arange(80) % 4
    values = centres[kinds] + rng.normal(size=(80, 128))
    for each in project(values, 0):
        middle = np.stack([each.points[kinds == k].mean(axis=0) for k in range(4)])
        nearest = np.linalg.norm(each.points[:, None] - middle, axis=2).argmin(axis=1)
        assert (nearest == kinds).mean() > 0.9, each.name
        assert each.points.min() >= 0 and each.points.max() <= 1


def test_colours():
    paths = [f"x/{i % 3}/{i % 6}/a{i}.wav" for i in range(60)]
    many = [f"kind {i % 55}" for i in range(3000)]
    ways = colourings(paths, {"flag": [True, False] * 30, "same": ["a"] * 60, "name": paths}, [1.0] * 60)
    assert [way["name"] for way in ways] == ["folder", "first folder", "flag"]
    assert (len(ways[0]["classes"]), len(ways[1]["classes"])) == (6, 3)
    (way,) = colourings(["a"] * 3000, {"kind": many}, [1.0] * 3000)
    assert len(way["classes"]) == 40 and way["classes"][-1] == "16 others" and way["others"]
    assert sum(way["counts"]) == 3000 and max(way["codes"]) == 39
    (way,) = colourings(["a", "b"], {"x": [1.0, 1.0]}, [2.0, 2.0])
    assert way["classes"] == ["files"]


def test_charts():
    chart = histogram(np.array([1, 2, 2, 100], np.float32), unit="seconds", things="files")
    assert chart.count("<rect") == 3 and "half of them up to 2 seconds" in chart
    assert histogram(np.array([5, 5], np.float32), unit="s", things="files").count("<rect") == 1
    assert histogram(np.zeros(0, np.float32), unit="s", things="files") == ""
    chart = throughput([(10, 100), (20, 300), (20.01, 301)], [10])
    assert chart.count('class="resumed"') == 1 and "on average 15 times real time" in chart
    steps = re.search(r'<polyline class="line" points="([^"]*)"', chart)[1].split()
    assert len(steps) == 4  # two steps: the moment at the end is no step of its own
    assert throughput([], []) == "" and throughput([(0, 0)], []) == ""


# In a browser


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1200,1000"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as opened:
        opened.set_script_timeout(30)
        yield opened


@pytest.fixture
def shown(browser, page):
    """The page in the browser, its map drawn; afterwards nothing has gone wrong and nothing was fetched."""
    browser.get_log("performance")
    browser.get(page.as_uri())
    wait(browser, POINTS + "return points().length")
    yield browser
    told = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    fetched = [each["params"]["request"]["url"] for each in told if each["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in fetched} <= {"file", "data"}
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.title == "dump · vggish-pt report"


# Where the canvas has colour: one place in each of its larger spots.
POINTS = """
const points = () => {
  const canvas = document.getElementById("canvas"), ratio = canvas.width / canvas.clientWidth, found = [];
  const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let y = 2; y < height - 2; y += 2) for (let x = 2; x < width - 2; x += 2)
    if (data[4 * (y * width + x) + 3] > 200) found.push([x / ratio, y / ratio]);
  return found;
};
"""


def wait(browser, script, *arguments):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(script, *arguments))


def pointer(browser, x, y):
    """The mouse over a place of the map."""
    from selenium.webdriver import ActionChains

    canvas = browser.find_element("id", "canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    box = canvas.rect
    return ActionChains(browser, duration=20).move_to_element_with_offset(
        canvas, round(x - box["width"] / 2), round(y - box["height"] / 2)
    )


def picture(browser):
    """The map as it is once all that was asked for is drawn."""
    return browser.execute_async_script(
        "const then = arguments[0];"
        "requestAnimationFrame(() => requestAnimationFrame(() => then(document.getElementById('canvas').toDataURL())))"
    )


def text(browser, name):
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", name)


@pytest.mark.slow
def test_hover_shows_the_name_and_click_plays(shown, page):
    names = data_of(page)["names"]
    spots = shown.execute_script(POINTS + "return points()")
    assert len(spots) > 25  # pixels
    x, y = spots[len(spots) // 2]
    pointer(shown, x, y).perform()
    name = wait(shown, "const tip = document.getElementById('tip'); return !tip.hidden && tip.firstChild.textContent")
    assert name in names
    # A file that is there, by its name, then by the mouse.
    shown.find_element("id", "find").send_keys("#00")
    shown.find_element("css selector", "#found button").click()
    assert text(shown, "name") == "sounds/dog/#00 ä.wav"
    assert wait(shown, "const a = document.getElementById('audio'); return a.readyState > 2 && a.currentTime > 0")
    assert shown.execute_script("return document.getElementById('audio').src").endswith(
        "/sounds/dog/%2300%20%C3%A4.wav"
    )
    assert text(shown, "trouble") == ""
    pointer(shown, x, y).click().perform()
    assert text(shown, "name") == name
    assert "windows" in text(shown, "facts")


@pytest.mark.slow
def test_a_file_that_is_gone_says_so(shown):
    shown.find_element("id", "find").send_keys("#23")
    shown.find_element("css selector", "#found button").click()
    assert "was not found when this page was made" in text(shown, "trouble")
    assert shown.execute_script("return document.getElementById('audio').hidden")


@pytest.mark.slow
def test_hostile_names_are_text(shown):
    shown.find_element("id", "find").send_keys("onerror")
    shown.find_element("css selector", "#found button").click()
    assert text(shown, "name") == HOSTILE
    assert shown.execute_script("return document.images.length") == 0
    cells = shown.execute_script("return [...document.querySelectorAll('#errors td')].map((td) => td.textContent)")
    assert cells.count(HOSTILE) == 2


@pytest.mark.slow
def test_keys_move_play_and_zoom(shown):
    from selenium.webdriver import Keys

    plot = shown.find_element("id", "plot")
    plot.send_keys(Keys.ARROW_RIGHT)
    first = text(shown, "said")
    assert first
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_DOWN, Keys.ARROW_RIGHT):
        plot.send_keys(key)
    plot.send_keys("0")
    before = picture(shown)
    plot.send_keys("+")
    assert picture(shown) != before
    plot.send_keys("0")
    assert picture(shown) == before
    plot.send_keys(Keys.ESCAPE)
    assert not shown.find_element("id", "chosen").is_displayed()


@pytest.mark.slow
def test_dragging_and_the_wheel_move_the_map(shown):
    from selenium.webdriver import ActionChains

    before = picture(shown)
    pointer(shown, 300, 200).click_and_hold().move_by_offset(60, 30).release().perform()
    assert picture(shown) != before
    assert not shown.find_element("id", "chosen").is_displayed()
    before = picture(shown)
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    origin = ScrollOrigin.from_element(shown.find_element("id", "canvas"))
    ActionChains(shown).scroll_from_origin(origin, 0, -300).perform()
    assert picture(shown) != before
    shown.find_element("id", "all").click()


@pytest.mark.slow
def test_colours_layouts_and_legend(shown, page):
    ways = data_of(page)["colours"]
    legend = shown.find_elements("css selector", "#legend button")
    assert [b.find_element("class name", "label").text for b in legend][:3] == ["dog", "cat", "rain"]
    before = picture(shown)
    legend[1].click()
    assert shown.find_elements("css selector", "#legend [aria-pressed=true]")[0].text.startswith("cat")
    assert picture(shown) != before
    for way in (2, 3):
        shown.find_elements("css selector", "#colour option")[way].click()
        assert text(shown, "legend-title").startswith(ways[way]["name"])
    assert shown.find_elements("css selector", "#legend .scale")
    before = picture(shown)
    shown.find_elements("css selector", "#layout option")[1].click()
    assert picture(shown) != before


@pytest.mark.slow
def test_failures_can_be_searched(shown):
    box = shown.find_element("id", "filter")
    box.send_keys("WorkerError")
    assert text(shown, "filtered") == "2 of 9"
    rows = shown.find_elements("css selector", "#errors .list tbody tr")
    assert sum(row.is_displayed() for row in rows) == 2


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_and_narrow_screens(shown, theme):
    shown.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    shown.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        wait(shown, "return document.getElementById('canvas').clientWidth < 340")
        assert shown.execute_script("return document.documentElement.scrollWidth") <= 360
        colour = shown.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", colour)[:3])) > 380) is (theme == "light")
        assert wait(shown, POINTS + "return points().length > 25")
        shown.find_element("id", "theme").click()
        assert shown.execute_script("return getComputedStyle(document.body).backgroundColor") != colour
    finally:
        shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
