"""python -m d3ad.study.readme: write the measured parts of README.md and of docs/ anew."""
from d3ad.study.readme import pages, up_from, with_blocks

if __name__ == "__main__":
    for page in pages():
        page.write_text(with_blocks(page.read_text(encoding="utf-8"), up_from(page)), encoding="utf-8")
