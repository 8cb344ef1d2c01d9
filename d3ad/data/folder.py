"""Any folder of images, in one of two forms.

* Images directly in it: all are normal, for training; the test is empty, subfolders are not read.
* ``good`` (or ``normal``, ``ok``, ``train``) beside one folder per defect, as in anomalib's ``Folder``: a
  fifth of the normal images, drawn with ``seed``, goes to the test. Masks are optional, in
  ``masks/<defect>``, ``mask/<defect>`` or ``ground_truth/<defect>``, or, beside one defect only, directly in
  that folder; as ``<stem>.*`` or ``<stem>_mask.*``. A defect has one for each image or none at all.

A folder with ``train/good`` and ``test/<defect>`` is in the layout of MVTec AD: load it as "mvtec".
"""
from .base import (
    Dataset,
    Sample,
    anomalous_samples,
    find_root,
    hold_out,
    image_files,
    list_images,
    normal_samples,
    subfolders,
)

OPTIONS = ("seed",)
NORMAL = ("good", "normal", "ok", "train")
MASKS = ("masks", "mask", "ground_truth")
AMBIGUOUS = (*NORMAL, "test", "val")  # never a defect's name


def find(root):
    """The folder itself, if it holds images in one of the forms."""
    return find_root(root, (), _normal_folder, "images",
                     f"image in {', '.join(NORMAL)} (load train/good as mvtec), and none directly")


def categories(root):
    """One: the folder's own name."""
    return (root.name,)


def read(root, category, problems, seed=0):
    """The images of a folder in either form."""
    normal = _normal_folder(root)
    train, test = normal_samples(list_images(normal, problems)), []
    if normal != root:
        train, test = hold_out(train, seed)
        defects = [folder for folder in subfolders(root) if folder.name not in (*MASKS, *AMBIGUOUS)]
        for folder in subfolders(root):
            if folder.name in MASKS and image_files(folder) and len(defects) != 1:
                problems.append(f"{folder}: masks directly in it; move them to {folder.name}/<defect>")
            elif folder.name in AMBIGUOUS and folder != normal:
                problems.append(f"{folder}: not a defect beside {normal.name}; rename it, or load as mvtec")
            elif folder != normal and folder.name not in MASKS:
                test += _anomalous(root, folder, problems)
    return Dataset("folder", category, root, tuple(train), tuple(test), ())


def _normal_folder(root):
    return next((path for path in (*(root / name for name in NORMAL), root) if image_files(path)), None)


def _anomalous(root, folder, problems):
    images = list_images(folder, problems)
    for masks in (*(root / name / folder.name for name in MASKS), *(root / name for name in MASKS)):
        if image_files(masks) or (masks.is_dir() and masks.parent != root):
            return anomalous_samples(images, masks, folder.name, problems)
    return [Sample(path, 1, None, folder.name) for path in images]
