# Sets up the Python environment of this repository; sourced by run_all.sh, run_tests.sh, run_d3ad.sh
# and scripts/rehearse_paper.sh.
#
# Where a virtual or conda environment is active, nothing is installed: it is only checked.  Otherwise .venv
# is made at the repository's root from requirements.lock.  A stamp in .venv, written last, says what it was
# made from: while that is unchanged a start takes a moment; an interrupted install is done again.
#
# $extra, if set, names what only some commands need ("cluster"): requirements-$extra.lock is then installed, too.
# Afterwards $python is the interpreter to use.  $step, if set, is printed before the message: "[1/3] ".

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/d3ad-stamp
lock=$root/.venv.lock
editable="--no-deps --no-build-isolation -e"

fail() { echo "environment: $*" >&2; return 1; }

# Minutes or seconds since the moment $1 (in seconds, as $SECONDS counts them).
elapsed() {
    awk -v s=$((SECONDS - $1)) 'BEGIN { if (s < 60) print s " s"; else printf "%.1f min\n", s / 60 }'
}

# Is $1 a Python 3.11 or 3.12 that can make environments?  (A name on the PATH may be an empty shim: try it.)
usable_python() {
    "$1" -c 'import sys, venv, ensurepip
sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in python3 python3.12 python3.11 python; do
        if usable_python "$name"; then echo "$name"; return; fi
    done
    fail "no Python 3.11 or 3.12 with its venv module found; install one, or activate an environment"
}

# What .venv is made from: the lock, the package's own description, the Python version and the place.
wanted_stamp() {
    "$venv/bin/python" - "$root" <<'PY' 2>/dev/null
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
parts = [(root / name).read_bytes() for name in ("requirements.lock", "pyproject.toml")]
parts += [sys.version.encode(), str(root).encode()]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PY
}

is_ready() { [ -s "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted_stamp)" ]; }

# One install at a time: a folder is made by one process only.  A lock is taken over when its owner is gone.
take_lock() {
    local owner tries=0 nameless=0  # nameless: how often in a row the lock's owner had not written its number
    until mkdir "$lock" 2>/dev/null; do
        owner=$(cat "$lock/pid" 2>/dev/null)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -rf "$lock"; continue; fi
        if [ -n "$owner" ]; then nameless=0; else nameless=$((nameless + 1)); fi
        if [ $nameless -gt 10 ]; then rm -rf "$lock"; nameless=0; continue; fi
        [ $tries -gt 0 ] || echo "environment: another start is installing; waiting for it"
        tries=$((tries + 1))
        sleep 1
    done
    echo $$ > "$lock/pid"
}

pip_install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

# Makes .venv with the Python $1, or brings a finished one up to date.
install_environment() {
    if [ "$(cat "$stamp" 2>/dev/null)" = unfinished ]; then rm -rf "$venv"; fi
    usable_python "$venv/bin/python" || rm -rf "$venv"
    # a .venv that is not from here gets no mark before its installation has finished, so until then it is not removed
    if [ ! -e "$venv" ] || [ -f "$stamp" ]; then mkdir -p "$venv" && echo unfinished > "$stamp" || return 1; fi
    if [ ! -x "$venv/bin/pip" ]; then
        echo "environment: making .venv with $("$1" --version)"
        "$1" -m venv "$venv" || return 1
    fi
    echo "environment: installing the packages of requirements.lock (1.9 GB, more with CUDA; some minutes)"
    # pip compiles one file after the other; two at a time takes half as long
    pip_install --no-compile -r "$root/requirements.lock" && pip_install $editable "$root" || return 1
    "$venv/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$venv/lib" >/dev/null 2>&1  # some are templates
    wanted_stamp > "$stamp.part" && mv "$stamp.part" "$stamp"
}

# In a subshell, so that the lock goes away however this ends.
install_once() {
    (
        take_lock
        trap 'rm -rf "$lock"' EXIT
        trap 'exit 130' INT TERM
        is_ready || install_environment "$1" || exit 1
        has_extra || install_extra
    ) || fail "the installation did not finish; the same command starts it again"
}

has_extra() { [ -z "${extra:-}" ] || cmp -s "$root/requirements-$extra.lock" "$stamp-$extra"; }

install_extra() {
    echo "environment: installing the packages of requirements-$extra.lock"
    pip_install -c "$root/requirements.lock" -r "$root/requirements-$extra.lock" &&
        cp "$root/requirements-$extra.lock" "$stamp-$extra"
}

# An active environment belongs to its user: look, and say what is missing.
check_active() {
    python -c '
import importlib.util, pathlib, sys
if sys.version_info[:2] not in ((3, 11), (3, 12)):
    sys.exit("Python %d.%d is active, and 3.11 or 3.12 is needed" % sys.version_info[:2])
names = ("torch torchvision diffusers timm faiss sklearn pandas seaborn papermill ipykernel pytest nbval "
         "xdist hypothesis filelock psutil safetensors nbclient nbformat yaml packaging ruff importlinter d3ad").split()
missing = [name for name in names if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("it lacks " + ", ".join(missing))
found = pathlib.Path(importlib.util.find_spec("d3ad").origin).resolve().parent
if found != pathlib.Path(sys.argv[1], "d3ad").resolve():
    sys.exit("its d3ad is another one, in %s" % found.parent)
' "$root"
}

active_environment() {
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        [ "$VIRTUAL_ENV" -ef "$venv" ] || echo "$VIRTUAL_ENV"
    elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
        echo "$CONDA_PREFIX"
    fi
}

set_up_environment() {
    local started=$SECONDS active reason base
    active=$(active_environment)
    if [ -n "$active" ]; then
        python=python
        reason=$(cd / && check_active 2>&1) ||
            { fail "$active is active, but $reason. In $root type:" \
                "python -m pip install -r requirements.lock && python -m pip install $editable ."; return 1; }
        echo "${step:-}environment: ready in $(elapsed $started), the active one, $active"
        return
    fi
    python=$venv/bin/python
    if is_ready && has_extra; then
        echo "${step:-}environment: ready in $(elapsed $started), .venv as installed before"
    elif [ ! -w "$root" ]; then
        fail "$root can't be written to, so .venv can't be made; activate an environment"
    elif [ -e "$venv" ] && [ ! -f "$stamp" ] && ! usable_python "$venv/bin/python"; then
        fail "$venv is there and not from here, without a Python 3.11 or 3.12; move it away"
    else
        base=$(find_python) && install_once "$base" || return 1
        echo "${step:-}environment: installed in $(elapsed $started), in .venv"
    fi
}

set_up_environment
