"""GANomaly (Akcay, Atapour-Abarghouei and Breckon 2018, arXiv 1805.06725): encode, decode, encode again; anomalib's
networks.

Kept: the generator's three losses (adversarial on features 1, contextual 50, encoder 1); batches of 64 at 2e-4; the
score, the mean squared difference of both codes (authors' code, options.py and model.py).
Simplified: the encoder loss is anomalib's smooth L1, theirs is squared, which is twice as large for small differences;
weights start as PyTorch has them, theirs from a normal distribution of 0.02 (anomalib's call for it reaches no layer).
Their number is that of the epoch with the best AUROC on test images, scored with the test batch's statistics in batch
normalisation; ours is of the last step, with those of the training.  `baseline_width` narrows the networks.  The method
has no map: the absolute difference of image and reconstruction, smoothed, stands in and is ours.  Its images have 32 x
32 pixels, or up to 64 x 64; here they have the profile's size.  Scores aren't scaled to the test set's range, which no
single image knows.  A discriminator that wins isn't begun anew, so that one loop trains all methods.  The method has
networks of its own, and no backbone.
Images asked: 48,000, our choice (`adversarial.RECIPE`), since the paper's epochs are of far larger datasets.
Reported there: AUROC on classes of MNIST and CIFAR-10 and on X-ray images; MVTec AD isn't in that paper.  Others
measured it there: a mean I-AUROC of 78.2 (DRAEM's Table 1) or of 42.1 (anomalib's README).
"""
from torch import Tensor

from d3ad import maps
from d3ad.baselines.adversarial import Adversarial

CODE = 100


class GANomaly(Adversarial):
    name = "GANomaly"

    def _fit(self, train: Tensor) -> None:
        from anomalib.models.image.ganomaly.loss import GeneratorLoss
        from anomalib.models.image.ganomaly.torch_model import GanomalyModel
        size = (self.config.image_size,) * 2
        self.model = GanomalyModel(size, 3, self.width(64), CODE).to(self.device)
        loss = GeneratorLoss(wadv=1, wcon=50, wenc=1)

        def generator_loss(images: Tensor, given: tuple) -> Tensor:
            fake, code, code_again = given
            real_features, fake_features = (self.model.discriminator(x)[1] for x in (images, fake))
            return loss(code, code_again, images, fake, real_features, fake_features)

        self.train_both(self.model.generator, self.model.discriminator, train, generator_loss, self.model.generator,
                        lambda images: self.model.discriminator(images)[0])

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fake, code, code_again = self.model.generator(images)
        difference = maps.smooth((images - fake).abs().mean(1), self.sigma)
        return (code - code_again).square().flatten(1).mean(1), difference, fake
