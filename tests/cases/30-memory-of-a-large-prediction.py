"""`predict` keeps every image, reconstruction and map of a run in memory"""
import gc

import psutil
from _common import *


def rss(): gc.collect(); return psutil.Process().memory_info().rss / 1e6
pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
peak, at_once = {}, []
class Watched(Stub):
    def predict(self, images, **k):
        p = super().predict(images, **k); p.latent_map, p.feature_map, p.reconstruction = p.anomaly_map.clone(), p.anomaly_map.clone(), images.clone()
        at_once.append(len(p)); peak[n] = max(peak.get(n, 0), rss()); return p
for n in (20, 100, 400):  # the first warms up
    for i in range(n): (TMP / f"p{n}").mkdir(exist_ok=True); Image.fromarray(np.roll(pixels, i, 0)).save(TMP / f"p{n}/{i}.png")
    run_cli("predict", "model", TMP / f"p{n}", "--out", TMP / f"out{n}", "--pictures", "none", detector=Watched())
grows, size = (peak[400] - peak[100]) / 300, 64 * 64 * 4
print(f"MB held while predicting 100 and 400 images of 64 x 64: {peak[100]:.0f}, {peak[400]:.0f}: {grows * 1e6 / size:.1f} planes of float32 an image")
verdict(grows * 1e6 < 2 * size and max(at_once) <= 64, f"at most {max(at_once)} images at once")
