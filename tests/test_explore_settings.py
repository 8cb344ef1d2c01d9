"""scripts/explore_settings.py: what it calls validation data is that, and it fuses maps as the detector does."""
import sys
from pathlib import Path

import pytest
import torch

from d3ad import D3AD, data, maps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import explore_calibration
import explore_feature_distance
import explore_maps
import explore_settings as explore
import explore_training
import validation_data


def test_drawn_defects_change_the_image_where_they_say(images):
    changed, where = validation_data.draw_defects(images, torch.Generator().manual_seed(0))
    again, _ = validation_data.draw_defects(images, torch.Generator().manual_seed(0))
    assert torch.equal(changed, again) and changed.abs().max() <= 1 and set(where.unique().tolist()) == {0.0, 1.0}
    inside = (changed - images).abs().mean(1)
    for difference, mask in zip(inside, where):
        assert mask.sum() > 0 and difference[mask > 0].mean() > 3 * difference[mask == 0].mean()


@pytest.mark.parametrize("category", ["bottle", "tiles"])
def test_held_out_images_are_training_images_that_are_not_trained_on(category, monkeypatch, tmp_path):
    from d3ad.data import Dataset, Sample
    shown = []
    train = tuple(Sample(Path(f"exp{i % 5 + 1}_num_{1000 * (i // 5) + i}.jpg"), 0, None, "good") for i in range(40))

    class Stub(Dataset):
        def images(self, split, size):
            shown.append(split)
            return torch.arange(40.0).view(-1, 1, 1, 1).expand(-1, 3, size, size)

    stub = Stub("x", category, tmp_path, train, (), ())
    monkeypatch.setattr(data, "load", lambda *args, **options: stub)
    trained, held = (x[:, 0, 0, 0].long().tolist() for x in validation_data.split(category, tmp_path, 8))
    assert sorted(trained + held) == list(range(40)) and len(held) >= 8 and shown == ["train"]
    if category == "tiles":  # five exposures of a tile stay together
        assert not {i // 5 for i in trained} & {i // 5 for i in held}


def test_maps_are_fused_as_the_detector_fuses_them(tiny, images):
    found = D3AD(tiny.replace(calibration_images=10, calibration_levels=3, num_steps=2, weight=0.3)).fit(images)
    steps = found.calibration.levels
    with torch.no_grad():
        raw, levels = explore.look(found, images), [explore.look(found, images, int(step)) for step in steps]
    own = (steps - raw["t_hat"].unsqueeze(1)).abs().argmin(1)
    fused = explore.fused(raw, levels, own, steps, found.config.map_blocks, 0.3, True, found.config.sigma * 64 / 256)
    torch.testing.assert_close(fused, found.predict(images).anomaly_map, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(maps.image_score(fused)).all()


def test_the_setting_chosen_is_a_config_and_stands_in_the_table(tmp_path):
    import tomllib

    from d3ad import Config
    assert Config(**tomllib.loads(explore.RECOMMENDED)).backbone_weights == "pip"
    committed = Path(explore.ROOT / "docs" / "settings.csv")
    (tmp_path / "settings.csv").write_bytes(committed.read_bytes())
    explore.write_tables(tmp_path / "settings.csv")
    assert (tmp_path / "settings.md").read_bytes() == committed.with_suffix(".md").read_bytes()


def test_a_moved_image_takes_its_mask_with_it():
    images = torch.zeros(6, 3, 128, 128)
    masks = torch.zeros(6, 128, 128)
    images[:, :, 60:64, 40:50], masks[:, 60:64, 40:50] = 1.0, 1.0
    moved, where = explore_calibration.moved(images, masks, torch.Generator().manual_seed(0))
    assert torch.equal(moved[:, 0], where) and torch.equal(where.sum((1, 2)), masks.sum((1, 2)))
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in where}) > 3  # each its own way
    assert (where.nonzero()[:, 1:] - torch.tensor([61.5, 44.5])).abs().amax(0).le(torch.tensor([4.5, 7.5])).all()


def test_defects_can_lie_where_normal_images_vary():
    generator = torch.Generator().manual_seed(0)
    normal = torch.zeros(8, 3, 64, 64)
    normal[:, :, :, 32:] = torch.rand(8, 1, 1, 1, generator=generator)  # the right half differs from image to image
    held = 0.3 * torch.rand(12, 3, 64, 64, generator=generator)
    found = explore_calibration.by_place(held, normal)
    assert {place for place, _ in found} == {"anywhere", "where parts vary"}
    for kind, (images, masks) in validation_data.validation(held).items():
        assert torch.equal(found["anywhere", kind][0], images) and torch.equal(found["anywhere", kind][1], masks)
        there, where = found["where parts vary", kind]
        inside, outside = ((there - held).abs().amax(1)[where == inside].mean() for inside in (1, 0))
        assert inside > 5 * outside  # images and masks were picked together
        right = (masks[..., 32:].sum() / masks.sum(), where[..., 32:].sum() / where.sum())
        assert right[1] > 0.9 > right[0]


def test_a_map_is_standardised_alone_or_with_the_other():
    def raw(number, scale=1.0):
        return dict(latent=scale * torch.rand(number, 16, 16), feature=scale * torch.rand(number, 16, 16),
                    t_hat=torch.tensor([20, 80] * (number // 2)))
    torch.manual_seed(0)
    masks, good, bad = torch.zeros(6, 16, 16), raw(6), raw(6)
    masks[:, 4:8, 4:8] = 1
    for part in ("latent", "feature"):
        bad[part] = bad[part] + masks
    own, levels = ({name: made() for name in ("trained on", "unseen")} for made in (lambda: raw(6),
                                                                                  lambda: [raw(6) for _ in range(3)]))
    found = {(which, name, floor, weight): scores for (which, name, floor), weight, scores in
             explore_calibration.compared(good, bad, masks, own, levels, 1.0)}
    assert len(found) == len(explore_calibration.CHOICES) * len(explore_calibration.WEIGHTS)
    unseen = {which: {weight: found[which, "unseen", 1.0, weight] for weight in (0.0, 0.5, 1.0)}
              for which in ("both", "latent", "feature")}
    neither = {weight: found["neither", "", "", weight] for weight in (0.0, 0.5, 1.0)}
    assert unseen["latent"][1.0] == unseen["both"][1.0] != unseen["feature"][1.0] == neither[1.0]
    assert unseen["feature"][0.0] == unseen["both"][0.0] != unseen["latent"][0.0] == neither[0.0]


def test_the_page_on_calibration_is_that_of_its_rows(tmp_path):
    committed = Path(explore.ROOT / "docs" / "calibration.csv")
    (tmp_path / "calibration.csv").write_bytes(committed.read_bytes())
    explore_calibration.write_tables(tmp_path / "calibration.csv")
    assert (tmp_path / "calibration.md").read_bytes() == committed.with_suffix(".md").read_bytes()


def test_the_page_on_training_is_that_of_its_rows_and_its_changes_are_settings(tmp_path):
    import tomllib

    from d3ad import Config
    for changes in explore_training.CHANGES.values():
        Config(**tomllib.loads(explore.RECOMMENDED) | changes)
    committed = Path(explore.ROOT / "docs" / "training.csv")
    (tmp_path / "training.csv").write_bytes(committed.read_bytes())
    explore_training.write_tables(tmp_path / "training.csv")
    assert (tmp_path / "training.md").read_bytes() == committed.with_suffix(".md").read_bytes()


def test_the_page_on_distances_is_that_of_its_rows_and_says_what_they_say(tmp_path):
    from d3ad import Config
    committed = Path(explore.ROOT / "docs" / "feature-distance.csv")
    (tmp_path / "feature-distance.csv").write_bytes(committed.read_bytes())
    explore_feature_distance.write_tables(tmp_path / "feature-distance.csv")
    assert (tmp_path / "feature-distance.md").read_bytes() == committed.with_suffix(".md").read_bytes()
    means = explore_feature_distance.means_of(committed)
    chosen = Config.profile("parts")
    best = means.groupby(explore_feature_distance.SETTING).mean().mean(axis=1).idxmax()
    assert best == (chosen.feature_distance, " ".join(chosen.standardise), chosen.weight)
    for _, of_category in means.mean(axis=1).groupby("category"):
        cosine, mahalanobis = (of_category.xs((distance, "feature"), level=("distance", "standardised"))
                               .droplevel("category") for distance in ("cosine", "mahalanobis"))
        assert (mahalanobis - cosine).idxmax() == 0  # the feature map alone gains most
        assert cosine[0] < cosine[1] and mahalanobis[0] > cosine[0] + 1


def test_the_maps_as_chosen_are_those_of_the_profile(fitted, images):
    chosen, steps = explore_maps.CHOSEN, explore_maps.LEVELS
    found = fitted.variant(feature_distance=chosen.feature_distance, standardise=chosen.standardise,
                           map_blocks=chosen.map_blocks, weight=chosen.weight, calibration_levels=len(steps))
    assert torch.equal(found.calibration.levels, steps)
    normal = explore_maps.compared(found, found.calibration_images)
    levels = [explore_maps.compared(found.variant(dynamic=False, t_max=int(step)), found.calibration_images)
              for step in steps]
    way = explore_maps.Maps(sigma=found.config.sigma_pixels)
    made = explore_maps.maker(way, normal, levels)(explore_maps.compared(found, images))
    torch.testing.assert_close(made, found.predict(images).anomaly_map, rtol=1e-3, atol=1e-3)


def test_the_page_on_maps_is_that_of_its_rows(tmp_path):
    committed = Path(explore.ROOT / "docs" / "maps-tried.csv")
    (tmp_path / "maps-tried.csv").write_bytes(committed.read_bytes())
    explore_maps.write_tables(tmp_path / "maps-tried.csv")
    assert (tmp_path / "maps-tried.md").read_bytes() == committed.with_suffix(".md").read_bytes()
