"""GANomaly (Akcay, Atapour-Abarghouei and Breckon 2018, arXiv 1805.06725): encode, decode, encode again; anomalib's
torch model.

Kept: the generator's three losses (adversarial on features 1, contextual 50, encoder 1); the score, the distance
between both codes.
Simplified: `baseline_width` narrows the networks; the profile's budget instead of 15 epochs of far larger datasets.
The method
has no map: the absolute difference of image and reconstruction, smoothed, stands in and is ours.
Reported there: AUROC on classes of CIFAR-10 and on X-ray images; MVTec AD isn't in that paper.
"""
from anomalib.models.image.ganomaly.loss import GeneratorLoss
from anomalib.models.image.ganomaly.torch_model import GanomalyModel
from torch import Tensor

from d3ad import maps
from d3ad.baselines.adversarial import train_in_turn
from d3ad.baselines.base import Baseline

CODE = 100


class GANomaly(Baseline):
    name = "GANomaly"
    epochs, batch_size, pace = 15, 32, 2.0  # two networks learn all they know here

    def steps_asked(self, num_images: int) -> int:
        # 15 epochs of datasets of some thousand images: few epochs of few images teach a GAN nothing
        return 100 * self.epochs

    def _fit(self, train: Tensor) -> None:
        size = (self.config.image_size,) * 2
        self.model = GanomalyModel(size, 3, self.width(64), CODE).to(self.device)
        loss = GeneratorLoss(wadv=1, wcon=50, wenc=1)

        def generator_loss(images: Tensor, given: tuple) -> Tensor:
            fake, code, code_again = given
            real_features, fake_features = (self.model.discriminator(x)[1] for x in (images, fake))
            return loss(code, code_again, images, fake, real_features, fake_features)

        self.losses = train_in_turn(self.name, self.model.generator, self.model.discriminator,
                                    self.num_steps(len(train)),
                                    lambda step: self.batch(train, step), generator_loss, self.model.generator,
                                    lambda images: self.model.discriminator(images)[0])

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fake, code, code_again = self.model.generator(images)
        difference = maps.smooth((images - fake).abs().mean(1), self.sigma)
        return (code - code_again).square().flatten(1).mean(1), difference, fake
