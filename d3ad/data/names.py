"""What the name of a folder or a file means: the one table that every reader of folders uses.

Names are compared without regard to case, to the form of Unicode (composed or not), and to whether words are joined by
a blank, a dash, a point or an underscore: "Good Test", "good-test" and "GOOD_TEST" are one name.
"""
import re
import unicodedata

GOOD = frozenset("good normal ok okay io i_o pass passed fine gut defect_free no_defect no_defects nodefect".split())
DEFECT = frozenset("defect defects defective bad ng nok n_ok no_good not_good not_ok ko nio n_i_o fail failed faulty "
                   "reject rejected anomaly anomalies anomalous abnormal schlecht".split())
MASK = frozenset("mask masks ground_truth groundtruth gt annotation annotations segmentation segmentations".split())
TEST = frozenset("test testing test_public val valid validation eval evaluation".split())
TRAIN = frozenset("train training".split())
SYSTEM = frozenset([*"@eadir #recycle #snapshot $recycle_bin recycler macosx system_volume_information lost+found "
                    "thumbs_db ehthumbs_db desktop_ini".split(), "icon\r"])  # split() would strip macOS's "\r"
UNCLEAR = frozenset("all images image img imgs pictures photos data dataset new old misc other others unknown unsorted "
                    "todo rework label labels".split())
# Words of sub-folders that only sort photographs: by date, shift, camera, lot; single letters and digits may stand
# beside them.
GROUP = frozenset("shift schicht cam camera kamera line linie lot batch charge day tag week kw run series station view "
                  "light part tray box dcim early late night morning evening noon fr\u00fch sp\u00e4t nacht frueh "
                  "spaet canon nikon date datum hour mon tue wed thu fri sat sun monday tuesday wednesday thursday "
                  "friday saturday sunday jan feb mar apr may jun jul aug sep oct nov dec".split())


def normalised(name: str) -> str:
    """The name as it is compared: NFKC, lower case, words joined by "_"."""
    return re.sub(r"[ \t._-]+", "_", unicodedata.normalize("NFKC", name).casefold()).strip("_")


def is_hidden(name: str) -> bool:
    """Whether a system hides files of this name, or programs leave them behind."""
    return name.startswith((".", "~$")) or normalised(name) in SYSTEM


def meaning(name: str) -> str:
    """What a folder of this name holds.

    "good", "good test" (good, held back for the test), "defect" (anomalous of any kind), "mask", "test" or "train" (a
    split, which says nothing of good or anomalous), "group" (a date, a camera, a shift), "system" (nobody's
    photographs), "unclear" (such as "good2" or "images"), or "other": where good ones stand beside it, the name of a
    defect.
    """
    if is_hidden(name):
        return "system"
    plain = normalised(name)
    for found, table in (("good", GOOD), ("defect", DEFECT), ("mask", MASK), ("test", TEST), ("train", TRAIN),
                         ("unclear", UNCLEAR)):
        if plain in table:
            return found
    for one, other in _parted(plain):  # "good_test" and "test_good"
        if one in TEST | TRAIN:
            return {"good": "good test" if one in TEST else "good", "defect": "defect",
                    "mask": "mask"}.get(meaning(other), "unclear")
        if one in {"mask", "masks", "gt"}:
            return "mask"
    if any(word.rstrip("0123456789") in GOOD | UNCLEAR | TEST | TRAIN for word in plain.split("_")):
        return "unclear"
    words = [word.strip("0123456789") for word in plain.split("_")]
    return "group" if all(len(word) < 2 or word in GROUP for word in words) else "other"


def _parted(plain: str):
    """A name's first word and the rest, and its last word and the rest."""
    first, _, rest = plain.partition("_")
    rest_too, _, last = plain.rpartition("_")
    return [(first, rest), (last, rest_too)] if rest else []
