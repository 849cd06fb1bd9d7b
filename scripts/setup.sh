#!/usr/bin/env bash
# All the set-up that the make targets need: .venv, the Python packages, the libraries for software rendering.
# Safe to call again at any time; when nothing has changed it ends at once. Changes nothing outside .venv, except that
# as root it installs missing system packages with apt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
extras=tabletop,track,world,dev
render_packages=(libosmesa6 libegl1 libegl-mesa0 libgl1-mesa-dri)

say() { printf 'set-up: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

# The first interpreter that runs and is new enough; PYTHON, where given, is the only candidate.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python3.14}; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "expected Python >= 3.10, found none in: ${PYTHON:-python3, python3.10 to python3.14};" \
        "install one, or name yours: make test PYTHON=/path/to/python3"
}

# Install Debian packages where we may; else one message that says which. A package that a release no longer has is
# left out: the caller checks what it needed afterwards.
apt_install() {
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
        die "these system packages are missing: $*; install them (sudo apt-get install -y $*) and call make again"
    fi
    say "installing system packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null || say "apt-get update failed; going on with the package lists that are here"
    local package
    for package in "$@"; do
        apt-get install -y -qq --no-install-recommends "$package" </dev/null >/dev/null ||
            say "apt-get could not install $package"
    done
}

# An environment names its folder in every program of it: in a clone that was moved or copied those are the old one's,
# though python itself runs. What activation would set says for which folder it was made.
at_home() { (. "$venv/bin/activate" && [[ $VIRTUAL_ENV == "$(pwd -P)/$venv" ]]) >/dev/null 2>&1; }

# Not so where the folder was moved or the interpreter is gone: then it is made anew.
venv_works() { at_home && new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

make_venv() {
    local python log
    python=$(find_python)
    say "creating $venv with $("$python" --version)"
    if ! log=$("$python" -m venv --clear "$venv" 2>&1); then
        # Debian ships Python without ensurepip, which venv needs.
        "$python" -c 'import ensurepip' 2>/dev/null && die "python -m venv failed: $log"
        apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        "$python" -m venv --clear "$venv" || die "python -m venv still fails; see the lines above"
    fi
}

install_packages() {
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --constraint constraints.txt)
    say "installing torch"
    "${pip[@]}" "$(grep '^torch==' constraints.txt)"
    say "installing engram and the rest"
    "${pip[@]}" --editable ".[$extras]"
}

# MuJoCo renders through OSMesa or EGL; either is enough.
can_render() {
    "$venv/bin/python" -IS - <<'PY'
import ctypes, sys

def loads(name):
    try:
        return bool(ctypes.CDLL(name))
    except OSError:
        return False

sys.exit(not (loads("libOSMesa.so.8") or (loads("libEGL.so.1") and loads("libEGL_mesa.so.0"))))
PY
}

stamp=$venv/.engram-set-up
wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum)
if ! at_home || [[ ! -x $venv/bin/engram || $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
    venv_works || make_venv
    install_packages
    echo "$wanted" >"$stamp"
fi

[[ $(uname) == Linux ]] || exit 0 # elsewhere MuJoCo brings its own way to render
if ! can_render; then
    apt_install "${render_packages[@]}"
    can_render || die "expected libOSMesa or Mesa's libEGL for software rendering, found neither;" \
        "install one of: ${render_packages[*]}"
fi
