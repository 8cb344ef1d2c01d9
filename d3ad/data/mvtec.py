"""MVTec AD: 15 objects and textures (Bergmann et al., CVPR 2019). CC BY-NC-SA 4.0, non-commercial.

From https://www.mvtec.com/company/research/datasets/mvtec-ad, laid out as ``<category>/train/good``,
``test/<type>/NNN.png``, ``ground_truth/<type>/NNN_mask.png``. Some categories are single-channel.
MVTec LOCO AD and MVTec AD 2 are read in their own layouts; of AD 2 the public test.
"""
from .layouts import FolderLayout

PUBLISHED = {
    "bottle": (209, 20, 63), "cable": (224, 58, 92), "capsule": (219, 23, 109), "carpet": (280, 28, 89),
    "grid": (264, 21, 57), "hazelnut": (391, 40, 70), "leather": (245, 32, 92), "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141), "screw": (320, 41, 119), "tile": (230, 33, 84), "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40), "wood": (247, 19, 60), "zipper": (240, 32, 119),
}
READER = FolderLayout("mvtec", ("mvtec_anomaly*", "mvtec", "mvtec_ad", "mvtec*"), PUBLISHED)
