#!/usr/bin/env bash
# Regenerates every figure and table by running the notebooks in order.
#
#   ./run_all.sh [--profile P] [--data-root DIR] [--only 03,05] [--out DIR] [--workers W] [--force]
#
#   --profile P      smoke, demo (the default), mtd, elpv, mvtec-cpu, mvtec-taef2, mvtec-gpu, visa,
#                    visa-authors, btad or mvtec
#   --data-root DIR  where the dataset lies; all but smoke, demo and elpv need it
#   --only 03,05     only these notebooks, by number
#   --out DIR        figures/, results/, notebooks/ and cache/ go under DIR, and the checkout stays as it was
#   --workers W      local (the default), or ray: a Ray cluster's, at RAY_ADDRESS or on this machine; installs Ray
#   --force          forget what the cache keeps of this profile, and compute it again
#
# Where no Python environment is active, it first makes .venv (once).  What was computed is kept in .cache: a
# second run redraws in seconds, and a run that was interrupted continues where it stopped.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# A question or a mistyped option is answered before anything is installed; the runner checks the rest.
for argument in "$@"; do
    case ${argument%%=*} in
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
        --profile | --data-root | --only | --out | --workers | --force | --update-notebooks) ;;
        -*) echo "run_all.sh: unknown option $argument (allowed:" \
                "--profile --data-root --only --out --workers --force; see --help)" >&2
            exit 2 ;;
    esac
done

case " ${D3AD_WORKERS:-} $* " in *" ray "* | *" --workers=ray "*) extra=cluster ;; esac
. "$here/scripts/environment.sh" || exit 1
exec "$python" -m d3ad.study.runner "$@"
