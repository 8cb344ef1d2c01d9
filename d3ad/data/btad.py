"""BTAD, beanTech: 3 industrial products (Mishra et al., VT-ADL, ISIE 2021). No clear licence: non-commercial.

From https://avires.dimi.uniud.it/papers/btad/btad.zip, laid out as
``<category>/{train/ok,test/ok,test/ko,ground_truth/ko}``. Images are bmp or png depending on the product,
masks png or bmp, and all-png copies exist: files are matched by stem, whatever the suffix.
"""
from .layouts import FolderLayout

PUBLISHED = {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)}
READER = FolderLayout("btad", ("btech*", "btad*"), PUBLISHED, "ok", ("ko",))
