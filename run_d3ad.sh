#!/usr/bin/env bash
# The detector on your own parts: `python -m d3ad` with the environment set up where there is none.
#
#   ./run_d3ad.sh fit GOOD_FOLDER --out MODEL
#   ./run_d3ad.sh predict MODEL NEW_FOLDER --out OUT        # OUT/report.html
#   ./run_d3ad.sh COMMAND --help                            # check, fit, predict, watch, export, evaluate, synthesize, benchmark
#
# Folders are those of where you stand.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${1:-} in
    "" | -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
esac

. "$here/scripts/environment.sh" || exit 1
exec "$python" -m d3ad "$@"
