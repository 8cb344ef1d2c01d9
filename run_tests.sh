#!/usr/bin/env bash
# Runs every check: ruff and import-linter (rules in pyproject.toml), pytest (unit tests, and each notebook in the
# smoke profile), then nbval on the notebooks.
#
#   ./run_tests.sh [--long] [--no-browser] [arguments for pytest]
#
#   --long           the long series too: thousands of random cases, more kills, Ray (which is then installed)
#   --no-browser     install no Chromium for the report page's test, which is skipped where there is none
#
# Where no Python environment is active, it first makes .venv (once).  The exit code is 0 where all passed.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
browser=yes
kept=()
for argument in "$@"; do
    case $argument in
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
        --no-browser) browser=no ;;
        --long) extra=cluster; kept+=(--long) ;;
        *) kept+=("$argument") ;;
    esac
done

step="[1/4] "
if [ $browser = yes ]; then bash "$here/scripts/browser.sh" & fi
. "$here/scripts/environment.sh" || exit 1
cd "$here" || exit 1
wait

failed=0
echo "[2/4] ruff, import-linter"
started=$SECONDS
"$python" -m ruff check . || failed=1
"$python" -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' || failed=1
echo "[2/4] ruff, import-linter: $(elapsed $started)"

# Both steps with notebooks share one temporary folder, so that what the first computes is in the second's cache.
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
echo "[3/4] pytest"
started=$SECONDS
# Two files of tests at a time: each computes with one thread.
D3AD_TEST_OUT="$scratch" OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
    ${kept[@]+"${kept[@]}"} || failed=1
echo "[3/4] pytest: $(elapsed $started)"

echo "[4/4] nbval"
started=$SECONDS
# The notebooks of the checkout, cell by cell; what they compute lies in the cache.
D3AD_PROFILE=smoke D3AD_OUT="$scratch" TQDM_DISABLE=1 LOKY_MAX_CPU_COUNT=1 OMP_NUM_THREADS=1 \
    "$python" -m d3ad.study.running.kernels "$scratch/jupyter" \
    "$python" -m pytest -n 2 --dist loadfile --nbval-lax --nbval-kernel-name d3ad notebooks || failed=1
echo "[4/4] nbval: $(elapsed $started)"

if [ $failed -eq 0 ]; then echo "all passed in $(elapsed 0)"; else echo "FAILED, after $(elapsed 0)" >&2; fi
exit $failed
