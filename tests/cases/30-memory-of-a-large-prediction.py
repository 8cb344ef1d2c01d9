"""`predict` keeps every image, reconstruction and map of a run in memory"""
import weakref

from _common import *

pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
made, at_once, alive = [], [], []
class Watched(Stub):
    def predict(self, images, **k):
        p = super().predict(images, **k); p.latent_map, p.feature_map, p.reconstruction = p.anomaly_map.clone(), p.anomaly_map.clone(), images.clone()
        made.extend(weakref.ref(x) for x in (p.anomaly_map, p.latent_map, p.feature_map, p.reconstruction)); at_once.append(len(p))
        alive.append(sum(x() is not None for x in made)); return p
(TMP / "p").mkdir()
for i in range(200): Image.fromarray(np.roll(pixels, i, 0)).save(TMP / f"p/{i}.png")
code, out, err = run_cli("predict", "model", TMP / "p", "--out", TMP / "out", "--pictures", "none", detector=Watched())
print(f"exit code {code}; {len(at_once)} predictions of at most {max(at_once)} images; tensors of earlier ones still held: {max(alive) - 4}")
verdict(code == 0 and sum(at_once) == 200 and max(at_once) <= 64 and max(alive) <= 8, "at most one earlier prediction is held")
