"""What an inspector gets: files, pictures, and the HTML report in a real browser, where there is one."""
import base64
import html
import json
import re
import shutil
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from d3ad.app import report
from d3ad.detector import Prediction

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = ['</script><img src=x onerror="document.title=1">.png', "quo\"te's & <b>bold</b>.png", "части/Löß 部品.png",
           "new\nline.png"]


@pytest.fixture()
def predicted():
    """Four images; the map of number i is i / 10 with a square of twice that, the threshold 0.35."""
    values = torch.arange(4) / 10
    maps = values.view(4, 1, 1).expand(4, 16, 16).clone()
    maps[:, 4:8, 4:8] *= 2
    images = torch.linspace(-1, 1, 4 * 3 * 256).view(4, 3, 16, 16)
    prediction = Prediction(score=maps.flatten(1).amax(1), anomaly_map=maps, reconstruction=-images,
                            t_hat=torch.tensor([20, 20, 40, 80]),
                            latent_map=maps, feature_map=maps, distance=values, threshold=0.35)
    return images, prediction


def test_files_and_pictures_say_what_the_prediction_says(predicted, tmp_path):
    images, prediction = predicted
    report.write_results(tmp_path, HOSTILE, images, prediction, "From good images.", raw=True)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table["path"].tolist() == HOSTILE and table["is_anomalous"].tolist() == [False, False, True, True]
    masks = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "masks").iterdir())]
    assert [int((mask > 0).sum()) for mask in masks] == [0, 0, 16, 16]  # the squares of 0.4 and 0.6
    tinted = np.asarray(Image.open(sorted((tmp_path / "overlays").iterdir())[3])).astype(int)
    assert (tinted[5, 5] == (0.35 * report._pixels(images[3])[5, 5] + 0.65 * report.RED).round()).all()
    assert (tinted[0, 0] == report._pixels(images[3])[0, 0]).all()
    raw = np.load(sorted((tmp_path / "maps").iterdir())[2])
    assert np.allclose(raw, prediction.anomaly_map[2]) and raw.dtype == np.float32
    # no name leads out
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} <= {tmp_path, *tmp_path.iterdir()}


def test_a_name_cannot_break_out_of_its_place(predicted, tmp_path):
    report.write_page(tmp_path / "report.html", HOSTILE, *predicted, guarantee="</script>")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2  # the data's and the code's
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert [item["path"] for item in data["items"]] == HOSTILE


def test_the_report_needs_nothing_from_elsewhere(predicted, tmp_path):
    report.write_page(tmp_path / "report.html", ["a"] * 4, *predicted, guarantee="")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)\s*=\s*"(?!data:|#)|@import|fetch\(|url\(',
                         text.replace("http://www.w3.org/2000/svg", ""))


def test_only_the_highest_scores_have_pictures(predicted, tmp_path):
    report.write_page(tmp_path / "report.html", list("abcd"), *predicted, guarantee="", most=2)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    items = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["items"]
    assert ["image" in item for item in items] == [False, False, True, True]


def test_names_must_belong_to_the_images(predicted, tmp_path):
    with pytest.raises(ValueError, match="3 names, 4 images"):
        report.write_page(tmp_path / "report.html", list("abc"), *predicted, guarantee="")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(CHROMIUM is None,
                    reason="no Chromium found: apt-get install chromium, to see the report in a browser")
def test_in_a_browser(predicted, tmp_path):
    page = tmp_path / "report.html"
    report.write_page(page, HOSTILE, *predicted, guarantee="From good images.")
    act = """<script>
      const before = document.getElementById("count").textContent;
      const slider = document.getElementById("slider"); slider.value = 0.5; slider.dispatchEvent(new Event("input"));
      document.querySelector("th button").click();
      const found = document.getElementById("find"), rows = () => document.querySelectorAll("#rows tr").length;
      found.value = "BOLD"; found.dispatchEvent(new Event("input")); const sought = rows();
      found.value = ""; const kind = document.getElementById("kind");
      kind.value = "bad"; kind.dispatchEvent(new Event("change"));
      const flagged = rows(); kind.value = "all"; kind.dispatchEvent(new Event("change"));
      const red = [2, 3].map((i) => { segmentation(items[i]); const c = items[i].canvas;
        const p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let k = 0; k < p.length; k += 4) if (p[k] > p[k + 1] + 60) n++; return n; });
      document.body.dataset.more = JSON.stringify([sought, flagged, document.getElementById("more").hidden, red]);
      document.body.dataset.seen = JSON.stringify([before, document.getElementById("count").textContent, document.title,
        [...document.querySelectorAll("#rows tr")].map((row) => row.textContent),
        document.querySelectorAll("article img").length,
        document.querySelectorAll("#histogram rect").length]);
    </script></body>"""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", act), encoding="utf-8")
    shown = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
                            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
                            page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    seen = json.loads(html.unescape(re.search(r'data-seen="(.*?)"', shown, re.S)[1]))
    before, after, title, rows, pictures, bars = seen
    sought, flagged, no_more, red = json.loads(re.search(r'data-more="(.*?)"', shown, re.S)[1].replace("&quot;", '"'))
    assert (sought, flagged, no_more) == (1, 1, True)  # at a threshold of 0.5 one image is above it
    assert (red[0] == 0 and 0 < red[1] <= 256) or red == [0, 0]  # pictures may not be decoded yet
    assert before == "2 of 4 images above the threshold" and after == "1 of 4 images above the threshold"
    assert title == "D3AD inspection report" and pictures == 12 and bars == 40  # nothing in a name was run
    assert len(rows) == 4 and any(row.startswith(HOSTILE[0]) and row.endswith("good") for row in rows)


def test_a_flagged_photograph_has_a_marked_pixel_whatever_its_size():
    anomaly_map = torch.zeros(16, 16)
    anomaly_map[5, 9] = 1.0
    for size in ((3, 2), (16, 16), (17, 31), (500, 40), (4, 300)):
        above = report.above_threshold(anomaly_map, 0.999, size)
        assert above.shape == size[::-1] and above.any()
        assert report.boxes(above, anomaly_map)[0][5] == 1.0


def test_each_region_is_marked_beside_a_larger_one():
    anomaly_map = torch.zeros(16, 16)
    anomaly_map[2:6, 2:6], anomaly_map[12, 12] = 1.0, 1.0
    for size in ((500, 40), (17, 31), (40, 500)):
        found = report.boxes(report.above_threshold(anomaly_map, 0.999, size), anomaly_map)
        assert len(found) == 2 and found[1][0] > size[0] / 2 and found[1][1] > size[1] / 2


def test_a_weak_region_around_a_strong_one_has_its_own_highest_value():
    anomaly_map = torch.zeros(12, 12)
    anomaly_map[1:11, 1:11] = 0.6
    anomaly_map[3:9, 3:9] = 0.0
    anomaly_map[5:7, 5:7] = 0.9
    above = report.above_threshold(anomaly_map, 0.5, (12, 12))
    assert [box[4:] for box in report.boxes(above, anomaly_map)] == [[64, 0.6], [4, 0.9]]


def test_a_page_of_twenty_thousand_rows_is_written_in_seconds(tmp_path):
    rows = (dict(path=f"{i}.png", score=i / 2e4, t_hat=20, files=[f"overlays/{i}.png"]) for i in range(20_000))
    started = time.monotonic()
    report.compose_page(tmp_path / "report.html", rows, [i / 2e4 for i in range(20_000)], 0.5, "", 0)
    assert time.monotonic() - started < 10 and (tmp_path / "report.html").stat().st_size < 4e6


def test_values_on_the_page_are_on_the_right_side_of_the_threshold():
    generator = torch.Generator().manual_seed(0)
    anomaly_map = torch.rand(64, 64, generator=generator)
    anomaly_map[0, 0] = 5000.0
    threshold = float(anomaly_map[3, 3])
    item = report.item_of(Image.new("RGB", (64, 64)), anomaly_map, torch.zeros(3, 64, 64), threshold)
    steps = np.frombuffer(base64.b64decode(item["values"]), "<u2").reshape(item["values_shape"])
    low, high = item["values_range"]
    assert ((steps / 65535 * (high - low) + low > threshold) == (anomaly_map > threshold).numpy()).all()
