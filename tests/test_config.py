"""The profiles and what Config refuses."""
import dataclasses

import pytest

from d3ad.config import Config
from d3ad.infra.profiles import profile_names
from d3ad.infra.settings import Settings
from d3ad.study.settings import Study, settings_hash, settings_of, study_profiles
from d3ad.study.workspace import open_workspace


@pytest.mark.parametrize("name", profile_names())
def test_profiles_load(name):
    config, study = Config.profile(name), Study.profile(name)
    assert config.name == name and bool(study.datasets) == (name not in ("paper", "parts"))
    assert Config.from_dict(config.to_dict()) == config and Study.from_dict(study.to_dict()) == study


def test_a_study_s_settings_are_no_detector_s():
    assert not set(Config.names()) & set(Study.names())
    with pytest.raises(ValueError, match="unknown setting 'datasets'; d3ad/config.py lists them all"):
        Config.profile("smoke", datasets=["visa"])
    with pytest.raises(ValueError, match="unknown setting 'k'; d3ad/study/settings.py lists them all"):
        Study.profile("smoke", k=3)
    assert study_profiles()[:2] == ("smoke", "demo") and not {"paper", "parts"} & set(study_profiles())


def test_defaults_are_the_papers():
    c = Config()
    assert (c.num_timesteps, c.beta_start, c.beta_end) == (1000, 0.0015, 0.0195)
    assert (c.t_max, c.k, c.num_bins, c.min_bin) == (80, 20, 10, 2)
    assert (c.train_epochs, c.learning_rate, c.weight_decay) == (300, 1e-4, 0.01)
    assert (c.weight, c.sigma, c.num_steps) == (0.85, 4.0, 10)
    assert (c.map_blocks, c.dic_block, c.omega, c.image_size) == ((2, 3), 2, 0.0, 256)


@pytest.mark.parametrize("change, message", [
    (dict(omega=1.5), "omega"), (dict(k=0), "k must"), (dict(k="20"), "k must be of type int"),
    (dict(k=True), "k must"),
    (dict(autoencoder="vq"), "autoencoder"), (dict(t_max=2000), "t_max"),
    (dict(t_max=85), "multiple of round_to"), (dict(t_max=4), "multiple of round_to"),
    (dict(train_t_max=50), "train_t_max"),
    (dict(map_blocks=[2.5]), "map_blocks"), (dict(nonsense=1), "nonsense"),
    (dict(learning_rate="1e-4"), "learning_rate"),
    (dict(beta_start=0.5), "beta_start"), (dict(min_bin=11), "min_bin"), (dict(image_size=100), "multiples of 8"),
    (dict(image_size=136), "halved"), (dict(crop_size=512), "crop_size"),
    (dict(unet_channels=[20, 40]), "unet_channels"),
    (dict(unet_channels=[]), "unet_channels"), (dict(unet_attention=[5]), "unet_attention"),
    (dict(latent_whitening=1.0), 'latent_whitening is of autoencoder "small", not of "kl"'),
    (dict(map_blocks=[2, 4]), "map_blocks must lie in 1..3"), (dict(seed=-1), "seed must lie"),
    (dict(omega=float("nan")), "omega"), ])
def test_refuses_and_names_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        Config().replace(**change)


@pytest.mark.parametrize("change, message", [
    (dict(counts=[80, 20]), "three numbers"), (dict(counts=[80, 20, -1]), "counts must lie"),
    (dict(source="drawn"), "source must be one of"),
    (dict(seeds=0), "seeds must lie"), (dict(baseline_width=2.0), "baseline_width"),
    (dict(baselines="PaDiM"), "must be a list of str")])
def test_a_study_refuses_and_names_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        Study().replace(**change)


def test_unknown_profile_lists_the_known():
    with pytest.raises(ValueError, match="btad, demo, .*smoke, visa"):
        Config.profile("nope")


def test_hash_follows_the_settings_and_not_the_device():
    c = Config.profile("demo")
    assert c.hash() == Config.profile("demo", device="cpu").hash() != c.replace(omega=1.0).hash()
    assert c.hash("k") == c.replace(omega=1.0).hash("k")


def test_stamps_of_results_outlive_another_way_to_write_a_setting():
    for maps, stamped in (((), False), (("latent", "feature"), True), (("feature",), ("feature",))):
        assert Config(standardise=maps).hashed()["standardise"] == stamped
    every = ((), ("latent",), ("feature",), ("latent", "feature"))
    assert len({Config(standardise=maps).hash() for maps in every}) == len(every)
    assert Config().hash() == "6710cc5879fe"  # as before there was a feature_distance
    assert Config().hash("latent_whitening", "k") == Config().hash("k")  # as before there was one
    with pytest.raises(KeyError, match="kk"):
        Config().hash("k", "kk")
    for younger in (dict(feature_distance="mahalanobis"), dict(autoencoder="small", latent_whitening=0.5)):
        assert Config(**younger).hash() != Config().hash()


def test_a_profile_takes_from_its_base_what_it_does_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr("d3ad.infra.profiles.PROFILE_FOLDER", tmp_path)
    (tmp_path / "first.toml").write_text("k = 3\nseed = 1\n[study]\nseeds = 2\nsplit = \"by_tile\"")
    (tmp_path / "second.toml").write_text("base = \"first\"\nk = 4\n[study]\nseeds = 5")
    (tmp_path / "third.toml").write_text("base = \"second\"\nt_max = 40")
    expected = Config(name="third", k=4, seed=1, t_max=40)
    assert Config.profile("third") == expected and Study.profile("third") == Study(seeds=5, split="by_tile")
    (tmp_path / "lost.toml").write_text("base = \"nowhere\"")
    with pytest.raises(ValueError, match="unknown profile 'nowhere'; there are first, lost, second, third"):
        Config.profile("lost")


def test_two_profiles_differ_in_the_autoencoder_and_in_the_light_of_copies_alone():
    small, taef2 = (Config.profile(name).to_dict() for name in ("mvtec-cpu", "mvtec-taef2"))
    of_autoencoder = {"autoencoder", "autoencoder_weights", "autoencoder_steps", "autoencoder_perceptual",
                      "latent_channels", "crop_size"}  # this one is for trainings from scratch
    assert {name for name in small if small[name] != taef2[name]} == {"name", "train_light", *of_autoencoder}


@pytest.mark.parametrize("kind", [Config, Study])
def test_every_number_has_a_range(kind: type[Settings]):
    fields = [field for field in dataclasses.fields(kind) if any(word in str(field.type) for word in ("int", "float"))]
    assert [field.name for field in fields if field.metadata["allowed"] is None] == []


def test_a_study_s_settings_count_for_the_stamp_of_its_results():
    config, study = Config.profile("demo"), Study.profile("demo")
    of_another_study = settings_hash(config, study.replace(seeds=2))
    assert settings_hash(config, study) != of_another_study != settings_hash(config.replace(k=5), study)


def test_visa_authors_has_the_quoted_settings_per_category(tmp_path):
    workspace = open_workspace("visa-authors", data_root=str(tmp_path))
    candle, pipe = (workspace.run("visa", category, seed=1).config for category in ("candle", "pipe_fryum"))
    assert (candle.guidance, candle.adapt_epochs, candle.train_epochs, candle.seed) == (8, 0, 50, 1)
    visa = Config.profile("visa")
    assert pipe.replace(name="visa", seed=0) == visa  # not quoted
    assert len(workspace.study.per_category) == 11 and "tuned on the test set" in workspace.study.label
    hash(workspace.run("visa", "candle"))


def test_a_setting_that_is_changed_is_changed_in_every_category(monkeypatch):
    monkeypatch.setenv("D3AD_SET", '{"train_epochs": 2}')
    _, study = settings_of("visa-authors")
    assert study.per_category["candle"] == dict(guidance=8.0, adapt_epochs=0)


@pytest.mark.parametrize("own, message", [
    (3, "must be a table of settings"), (dict(image_size=128), "must be a table of settings"),
    (dict(guidance="much"), "candle: guidance must be of type float"), (dict(train_epochs=0), "train_epochs must lie")])
def test_a_bad_setting_of_one_category_is_named(own, message):
    with pytest.raises(ValueError, match=message):
        settings_of("visa", per_category={"candle": own})


def test_a_setting_of_one_category_is_judged_beside_its_profile_s_own():
    _, study = settings_of("mvtec-cpu", per_category={"pill": dict(unet_channels=[48, 64, 80])})  # groups of 16
    assert study.per_category["pill"]
    with pytest.raises(ValueError, match=r"pill: t_max \(400\) exceeds train_t_max \(320\)"):
        settings_of("mvtec-cpu", per_category={"pill": dict(t_max=400)})
    with pytest.raises(ValueError, match="pill: train_steps and train_epochs change nothing beside start_steps"):
        settings_of("demo", per_category={"pill": dict(train_steps=9)})
