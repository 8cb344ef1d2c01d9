"""python -m d3ad.study.readme: write the measured parts of README.md and of docs/ anew."""
from d3ad.infra.files import write_whole
from d3ad.study.readme import pages, up_from, with_blocks

if __name__ == "__main__":
    for page in pages():
        write_whole(page, with_blocks(page.read_text(encoding="utf-8"), up_from(page)))
