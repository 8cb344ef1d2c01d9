"""A dataset as PyTorch's DataLoader takes it, for whoever trains something else on the same images."""
from torch import Tensor
from torch.utils.data import DataLoader, Dataset as TorchDataset

from .base import Dataset
from .pixels import load_image


class Images(TorchDataset):
    """Images of one split, read when asked for; an item is a dict.

    image (3, size, size) in [-1, 1], label 0 or 1, defect and path as text.
    """

    def __init__(self, dataset: Dataset, split: str, size: int):
        self.samples, self.size, self.white = getattr(dataset, split), size, dataset.white

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor | int | str]:
        sample = self.samples[index]
        return dict(image=load_image(sample.image, self.size, self.white, strict=True), label=sample.label, defect=sample.defect, path=str(sample.image))


def loader(dataset: Dataset, split: str, size: int, **options) -> DataLoader:
    """A DataLoader over `Images`; options as batch_size, shuffle, num_workers.  `D3AD.fit` and `predict` take it."""
    return DataLoader(Images(dataset, split, size), **options)
