"""Scores and verdicts from an exported model, without d3ad: python verdict.py EXPORTED_FOLDER PHOTOGRAPH ..."""
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import load_file


def pixels(file, size, white):
    """A photograph as (1, 3, size, size) in [-1, 1]: upright, transparency over white, 16-bit grey in parts of
    `white`."""
    photo, most = ImageOps.exif_transpose(Image.open(file)), 255
    assert photo.mode != "F", f"{file}: floating-point pixels have no known white"
    if photo.mode.startswith("I"):
        photo, most = Image.fromarray(np.asarray(photo).astype(np.float32)), white
        assert 0 <= photo.getextrema()[0] <= photo.getextrema()[1] <= white, f"{file}: values outside 0..{white}"
    else:
        if photo.has_transparency_data:
            photo = photo.convert("RGBA")
            photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
        photo = photo.convert("RGB")
    values = np.array(photo.resize((size, size), Image.Resampling.BILINEAR), np.float32).reshape(size, size, -1)
    return torch.from_numpy(values).permute(2, 0, 1).expand(3, -1, -1)[None] / (most / 2) - 1


@torch.no_grad()
def score(image, nets, c, s):
    """The anomaly score of one image (1, 3, H, W) in [-1, 1]; nets, c and s: the programs, tensors and settings of the
    export."""
    features, (z0, _) = nets["features"](image), nets["encoder"](image)
    flat = (0.35 * (image - image.mean()) / image.std().clamp_min(1e-3)).clamp(-1, 1)  # one brightness and contrast
    pooled = (nets["features"](flat) if s["dic_normalise"] else features)[s["dic_block"] - 1]
    pooled = F.adaptive_avg_pool2d(pooled, 16) if pooled.shape[-1] > 16 else pooled
    # Algorithm 2
    distance = (pooled.flatten(1) - c["reference"]).abs().sum(1).topk(s["k"], largest=False).values.mean()
    number = int(torch.searchsorted(c["edges"], distance.double()).clamp(s["min_bin"], s["num_bins"]))
    unit = s["num_bins"] * s["round_to"]
    t_hat = (2 * number * s["t_max"] + unit) // (2 * unit) * s["round_to"] if s["dynamic"] else s["t_max"]
    steps = [*range(t_hat, 0, -max(t_hat // s["num_steps"], 1)), 0]
    z = c["alpha_bar"][t_hat].sqrt() * z0
    for t, then in itertools.pairwise(steps):  # Algorithm 1
        (a, n), (b, m) = ((c["alpha_bar"][i].sqrt(), (1 - c["alpha_bar"][i]).sqrt()) for i in (t, then))
        eps = nets["unet"](z, torch.tensor([t - 1]))
        eps = eps - s["guidance"] * n * (a * z0 + n * eps - z)
        z = b * (z - n * eps) / a + m * eps
    rebuilt, both = nets["features"](nets["decoder"](z)), {"latent": (z0 - z).abs().mean(1, keepdim=True), "feature": 0}
    both["latent"] = F.interpolate(both["latent"], image.shape[-2:], mode="bilinear", align_corners=True)
    end = 0
    for j in s["map_blocks"]:
        ours, theirs = features[j - 1], rebuilt[j - 1]
        start, end = end, end + ours.shape[1]
        block = slice(start, end)  # its channels among those of all blocks
        if s["feature_distance"] == "mahalanobis":
            differences = (ours - theirs).movedim(1, -1) - c["difference_mean"][block]
            far = (differences @ c["difference_whitening"][block, block]).square().mean(-1)
        else:
            far = 1 - F.cosine_similarity(ours, theirs)
        both["feature"] += F.interpolate(far[:, None], image.shape[-2:], mode="bilinear", align_corners=True)
    # statistics of normal images at this step
    i = int(torch.searchsorted(c["levels"], t_hat).clamp(1, max(len(c["levels"]) - 1, 1)))
    low, high = (i - 1, i) if len(c["levels"]) > 1 else (0, 0)
    share = (t_hat - c["levels"][low]) / max(c["levels"][high] - c["levels"][low], 1)
    for name in both:
        mean, std = (torch.lerp(c[f"{name}_{what}"][low], c[f"{name}_{what}"][high], share) for what in ("mean", "std"))
        least, most = c[f"{name}_range"]
        both[name] = ((both[name] - mean) / std - least) / (most - least) if most > least else 0 * both[name]
    fused, reach = s["weight"] * both["latent"] + (1 - s["weight"]) * both["feature"], len(c["kernel"]) // 2  # Eq. 9
    fused = F.conv2d(F.pad(fused, (reach,) * 4, mode="reflect"), c["kernel"].view(1, 1, -1, 1)) if reach else fused
    return float((F.conv2d(fused, c["kernel"].view(1, 1, 1, -1)) if reach else fused).max())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    settings, tensors = json.loads((folder / "export.json").read_text()), load_file(folder / "verdict.safetensors")
    assert settings["spacing"] == "trailing" and settings["omega"] == 0 and not settings["latent_sample"] and (
        settings["dynamic"] or not settings["second_sampler"]), "see d3ad/diffusion.py for these"
    programs = {name: torch.export.load(folder / f"{name}.pt2").module()
                for name in ("encoder", "decoder", "unet", "features")}
    for name in sys.argv[2:]:
        found = score(pixels(name, settings["image_size"], settings["white"] or 65535), programs, tensors, settings)
        print(json.dumps(dict(path=name, score=found, is_anomalous=not found <= settings["threshold"])))
