"""Section 3's equations and Algorithm 1 against numbers worked out by other means."""
import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ad import diffusion
from d3ad.diffusion import alpha_bar, ddim_step, perturb, predict_x0, reconstruct, timesteps

ABAR = alpha_bar()


def eps_net(z, t):
    """A network for tests: depends on every latent value and on the step."""
    return torch.tanh(z.roll(1, -1)) + t.view(-1, 1, 1, 1).to(z) / 100


def test_schedule_has_the_authors_values():
    assert ABAR.shape == (1001,) and ABAR[0] == 1
    for index, value in {0: 0.9984999895, 19: 0.9671018720, 80: 0.8351987004, 400: 0.1283920854,
                         999: 2.5692e-05}.items():
        assert float(ABAR[index + 1]) == pytest.approx(value, rel=1e-4)


def test_schedule_by_a_plain_product():
    beta = [0.0015 + (0.0195 - 0.0015) * i / 999 for i in range(1000)]
    assert float(ABAR[3]) == pytest.approx((1 - beta[0]) * (1 - beta[1]) * (1 - beta[2]), abs=1e-7)
    assert float(ABAR[500]) == pytest.approx(math.exp(sum(math.log1p(-b) for b in beta[:500])), rel=1e-5)


BETAS = "0 < beta_start <= beta_end < 1 must hold; got "


@pytest.mark.parametrize("kwargs, message", [
    (dict(beta_start=0), BETAS + "0 and 0.0195"), (dict(beta_end=1), BETAS + "0.0015 and 1"),
    (dict(beta_start=0.1, beta_end=0.01), BETAS + "0.1 and 0.01"),
    (dict(num_timesteps=0), "num_timesteps must be at least 1; got 0")])
def test_schedule_refuses_nonsense(kwargs, message):
    with pytest.raises(ValueError, match=message):
        alpha_bar(**kwargs)


def test_one_step_at_a_time_adds_up_to_the_direct_jump():
    """Eq. 1 applied t times has the mean and the variance of Eq. 2."""
    scale, variance = 1.0, 0.0
    for beta in diffusion.betas()[:80].tolist():
        scale, variance = scale * math.sqrt(1 - beta), (1 - beta) * variance + beta
    assert scale == pytest.approx(math.sqrt(ABAR[80]), rel=1e-5)
    assert variance == pytest.approx(1 - float(ABAR[80]), rel=1e-5)


def test_perturb_by_hand():
    x0, noise = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), -1.0)
    t = torch.tensor([0, 80])
    got = perturb(x0, t, ABAR, omega=0.5, noise=noise).flatten()
    a = float(ABAR[80])
    assert got.tolist() == pytest.approx([2.0, 2 * math.sqrt(a) - 0.5 * math.sqrt(1 - a)], abs=1e-6)
    assert perturb(x0, 80, ABAR).flatten().tolist() == pytest.approx([2 * math.sqrt(a)] * 2, abs=1e-6)


def test_perturb_refuses():
    x = torch.zeros(1, 1, 1, 1)
    for bad, message in ((dict(t=1001), "t must lie in 0..1000; got 1001"),
                         (dict(t=-1), "t must lie in 0..1000; got -1"),
                         (dict(t=1, omega=1.5), "omega must lie in .*; got 1.5"),
                         (dict(t=1, omega=0.5), "omega > 0 needs `noise`")):
        with pytest.raises(ValueError, match=message):
            perturb(x, alpha_bar=ABAR, **bad)


def test_predict_x0_inverts_eq3():
    x0, eps = torch.randn(2, 3), torch.randn(2, 3)
    a = torch.tensor(0.3)
    assert torch.allclose(diffusion.predict_x0(a.sqrt() * x0 + (1 - a).sqrt() * eps, eps, a), x0, atol=1e-5)


def test_ddim_step_agrees_with_diffusers():
    scheduler = DDIMScheduler(1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="linear", clip_sample=False,
                              set_alpha_to_one=True, steps_offset=0)
    scheduler.set_timesteps(100)  # a stride of 10
    x, eps = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    theirs = scheduler.step(eps, 70, x, eta=0.0).prev_sample
    ours = diffusion.ddim_step(x, eps, ABAR[71], ABAR[61])
    assert torch.allclose(ours, theirs, atol=1e-5)
    with pytest.raises(ValueError, match="needs `noise`"):
        diffusion.ddim_step(x, eps, ABAR[71], ABAR[61], sigma=0.1)


def test_posterior_mean_agrees_with_the_posterior_of_gaussians():
    """q(x_{t-1} | x_t, x0) by completing the square, with x0 as the noise implies it."""
    t, x_t, eps = 50, torch.randn(5), torch.randn(5)
    beta, a, a_before = float(diffusion.betas()[t - 1]), float(ABAR[t]), float(ABAR[t - 1])
    x0 = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    mean = (math.sqrt(a_before) * beta * x0 + math.sqrt(1 - beta) * (1 - a_before) * x_t) / (1 - a)
    assert torch.allclose(diffusion.posterior_mean(x_t, eps, beta, ABAR[t]), mean, atol=1e-4)


def test_guidance_factor():
    """With the input only scaled, Eq. 8 leaves eps (1 - eta (1 - abar)): 0.42 for eta 4, -0.02 for 7, -0.45 for 10."""
    x0, eps, a = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4), ABAR[72 + 1]
    for eta, factor in {0: 1.0, 4: 0.42, 7: -0.02, 10: -0.45}.items():
        got = diffusion.guided_eps(eps, a.sqrt() * x0, x0, a, eta)
        assert torch.allclose(got, eps * (1 - eta * (1 - a)), atol=1e-5)
        assert float(1 - eta * (1 - a)) == pytest.approx(factor, abs=0.03)


def test_timesteps_of_both_spacings():
    assert timesteps(torch.tensor([80]), 10).flatten().tolist() == [80, 72, 64, 56, 48, 40, 32, 24, 16, 8, 0]
    # 0-based 72, 64, ..., 0 are the paper's 73, 65, ..., 1
    assert timesteps(torch.tensor([80]), 10, "leading").flatten().tolist() == [73, 65, 57, 49, 41, 33, 25, 17, 9, 1, 0]
    assert timesteps(torch.tensor([5, 0]), 10).T.tolist() == [[5, 4, 3, 2, 1, 0], [0] * 6]


@given(t_hat=st.integers(0, 1000), num_steps=st.integers(1, 50), spacing=st.sampled_from(["trailing", "leading"]))
def test_timesteps_fall_to_zero(t_hat, num_steps, spacing):
    steps = timesteps(torch.tensor([t_hat]), num_steps, spacing).flatten()
    assert steps[-1] == 0 and steps.max() <= max(t_hat, 0)
    assert (steps.diff()[steps[:-1] > 0] < 0).all()


def naive_algorithm_1(z0, t_hat, num_steps, guidance, spacing):
    """One image in float64 numpy, 0-based as the authors index it, written from Eqs. 7 and 8."""
    beta = np.linspace(0.0015, 0.0195, 1000)
    abar = np.cumprod(1 - beta)
    def at(i):
        return 1.0 if i < 0 else abar[i]
    d = max(t_hat // num_steps, 1)
    if spacing == "trailing":
        visited, start = [t - 1 for t in range(t_hat, 0, -d)], t_hat - 1
    else:
        visited, start = list(range(0, t_hat, d))[::-1], t_hat
    z = math.sqrt(at(start)) * z0
    for i, index in enumerate(visited):
        a, after = at(index), at(visited[i + 1] if i + 1 < len(visited) else -1)
        eps = eps_net(torch.from_numpy(z)[None], torch.tensor([index])).numpy()[0]
        tilde = math.sqrt(a) * z0 + math.sqrt(1 - a) * eps
        eps = eps - guidance * math.sqrt(1 - a) * (tilde - z)
        clean = (z - math.sqrt(1 - a) * eps) / math.sqrt(a)
        z = math.sqrt(after) * clean + math.sqrt(1 - after) * eps
    return z


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("guidance", [0.0, 4.0])
def test_reconstruct_agrees_with_a_naive_loop_image_by_image(spacing, guidance):
    z0, t_hat = torch.randn(5, 4, 6, 6), torch.tensor([80, 20, 50, 7, 200])
    together = reconstruct(eps_net, z0, t_hat, ABAR, guidance=guidance, spacing=spacing)
    for i in range(5):
        naive = naive_algorithm_1(z0[i].double().numpy(), int(t_hat[i]), 10, guidance, spacing)
        assert np.abs(together[i].numpy() - naive).max() < 1e-5 * max(1, np.abs(naive).max())
        alone = reconstruct(eps_net, z0[i:i + 1], t_hat[i:i + 1], ABAR, guidance=guidance, spacing=spacing)
        assert torch.allclose(alone[0], together[i], atol=1e-6)


def test_reconstruct_with_a_perfect_model_returns_the_normal_image():
    """A model that knows the clean latent removes whatever was noised onto it."""
    clean, t_hat = torch.randn(2, 4, 4, 4), torch.tensor([30, 80])
    def model(z, t):
        return (z - ABAR[t + 1].view(-1, 1, 1, 1).sqrt() * clean) / (1 - ABAR[t + 1].view(-1, 1, 1, 1)).sqrt()
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    assert torch.allclose(reconstruct(model, clean, t_hat, ABAR, omega=1.0, generator=generators), clean, atol=1e-4)


def test_zero_steps_return_the_input_and_noise_belongs_to_the_image():
    z0 = torch.randn(3, 4, 4, 4)
    assert torch.equal(reconstruct(eps_net, z0, 0, ABAR), z0)
    def streams(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]
    ab = reconstruct(eps_net, z0[:2], 80, ABAR, omega=1.0, generator=streams(1, 2))
    ba = reconstruct(eps_net, z0[[1, 0]], 80, ABAR, omega=1.0, generator=streams(2, 1))
    assert torch.allclose(ab, ba[[1, 0]], atol=1e-6)


def test_reconstruct_reports_each_step_and_refuses_what_it_cannot_do():
    seen = []
    reconstruct(eps_net, torch.randn(1, 4, 4, 4), 80, ABAR, callback=lambda i, t, z: seen.append((i, int(t[0]))))
    assert seen == list(enumerate([72, 64, 56, 48, 40, 32, 24, 16, 8, 0]))
    z = torch.zeros(1, 4, 4, 4)
    for bad, message in ((dict(t_hat=1001), "t_hat must lie in 0..1000; got 1001"),
                         (dict(t_hat=-1), "t_hat must lie in 0..1000; got -1"),
                         (dict(t_hat=80, spacing="none"), "spacing must be .*; got 'none'"),
                         (dict(t_hat=80, num_steps=0), "num_steps must be above 0; got 0")):
        with pytest.raises(ValueError, match=message):
            reconstruct(eps_net, z, alpha_bar=ABAR, **bad)
    with pytest.raises(ValueError, match="one each"):
        reconstruct(eps_net, z, 80, ABAR, omega=1.0, generator=[])


def test_simple_loss_is_zero_for_the_true_noise():
    z0, noise, t = torch.randn(3, 4, 4, 4), torch.randn(3, 4, 4, 4), torch.tensor([1, 500, 1000])
    assert diffusion.simple_loss(lambda z, t: noise, z0, t, noise, ABAR) == 0
    assert float(diffusion.simple_loss(lambda z, t: 0 * z, z0, t, noise,
                                       ABAR)) == pytest.approx(float(noise.square().mean()))


@settings(max_examples=30)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_perturb_keeps_variance_between_scaled_and_noised(omega, t):
    """For unit-variance input the variance is abar + omega^2 (1 - abar), at most 1."""
    one = torch.ones(1, 1, 1, 1)
    scale = float(perturb(one, t, ABAR))
    noise = float(perturb(0 * one, t, ABAR, omega, one))
    assert scale ** 2 + noise ** 2 == pytest.approx(float(ABAR[t] + omega ** 2 * (1 - ABAR[t])), abs=1e-5)


def test_the_authors_second_sampler_drops_the_direction_in_the_first_step_only():
    """One step from t = 20: without the direction term what is left is sqrt(abar_0) f(z), and abar_0 = 1: the same.

    Two steps, 20 to 10 to 0: by hand.
    """
    abar = alpha_bar()
    z0 = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def model(z, t):
        return 0.3 * z

    def both(steps):
        return (reconstruct(model, z0, 20, abar, steps, first_direction=first) for first in (True, False))

    one, other = both(1)
    assert torch.allclose(one, other, atol=1e-6)
    z = abar[20].sqrt() * z0
    z = abar[10].sqrt() * predict_x0(z, 0.3 * z, abar[20])
    by_hand = ddim_step(z, 0.3 * z, abar[10], abar[0])
    one, other = both(2)
    assert torch.allclose(other, by_hand, atol=1e-6) and not torch.allclose(one, other, atol=1e-3)
