#!/usr/bin/env bash
# What MIKASA-Robo needs beside Engram: ManiSkill, the benchmark and a Vulkan renderer; then one rendered episode.
# Safe to call again at any time. As root it installs Mesa's software renderer where there is no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
# The benchmark's own pins (torch 2.2, numpy 1.23, gymnasium 0.29) must not be honoured: it runs on today's.
benchmark=mikasa-robo-suite==1.0.0
mesa=(libvulkan1 mesa-vulkan-drivers libegl-mesa0 libgl1-mesa-dri libglx-mesa0 libosmesa6 libgbm1) # of one version
others=(libgl1 libglib2.0-0) # what OpenCV loads, which ManiSkill needs

say() { printf 'set-up: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

install_packages() {
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --constraint constraints.txt)
    say "installing mani-skill and mikasa-robo-suite"
    "${pip[@]}" --editable ".[mikasa]"
    "${pip[@]}" --no-deps --ignore-requires-python "$benchmark" # it says "< 3.12", and knows no more of it than its pins
}

# Debian 12's own Mesa (22.3) is too old for ManiSkill; its backports have 25.
add_backports() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ $codename == bookworm ]] || return 0
    apt-cache policy 2>/dev/null | grep -q 'bookworm-backports' && return 0
    local mirror
    mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
        sed -nE '/bookworm-security/d; s/^(URIs:|deb( \[[^]]*\])?) *([^ ]+).*/\3/p' | sort -u | sed -n 1p) || true
    [[ -n $mirror ]] || die "expected Debian's archive in /etc/apt, found none; add bookworm-backports and call make again"
    echo "deb $mirror bookworm-backports main" >/etc/apt/sources.list.d/engram-backports.list
}

install_mesa() {
    local codename release=()
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
        die "no Vulkan renderer: install Mesa >= 25 (Debian 12: from bookworm-backports): ${mesa[*]} ${others[*]}; then call make again"
    fi
    add_backports
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ $codename == bookworm ]] && release=(-t bookworm-backports)
    say "installing Mesa's software renderer: ${mesa[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends "${release[@]}" "${mesa[@]}" "${others[@]}" </dev/null >/dev/null
}

stamp=$venv/.engram-mikasa
wanted=$(cat pyproject.toml constraints.txt scripts/mikasa.sh | sha256sum)
[[ -f $stamp && $(cat "$stamp") == "$wanted" ]] && exit 0
install_packages
status=0
"$venv/bin/python" -m engram.envs.mikasa.proof || status=$?
if [[ $status -eq 3 ]]; then # a library or a renderer is missing
    install_mesa
    if ! "$venv/bin/python" -m engram.envs.mikasa.proof; then
        "$venv/bin/python" -m engram.envs.mikasa.proof cpu || die "the proof failed; what it said stands above"
        say "the GPU has no Vulkan driver: simulate on the CPU: export ENGRAM_MIKASA_DEVICE=cpu"
    fi
elif [[ $status -ne 0 ]]; then
    die "the proof failed; what it said stands above"
fi
echo "$wanted" >"$stamp"
