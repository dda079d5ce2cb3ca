# What the scripts beside this directory share: system packages, a virtual environment.
# Sourced, not run. The caller has set -euo pipefail and stands in the root of the checkout.

VENV=.venv
RUN_PACKAGES=(libfuse3-dev fuse3 pkg-config gcc python3-venv python3-dev)
TEST_PACKAGES=(git fio sqlite3 rsync tar)

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "$0: $*"
    exit 1
}

# as_root COMMAND...: as we are if we are root, with sudo else.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and sudo is not installed: $*"
    fi
}

# install_packages NAME...: those that are missing. The package lists are fetched only if they must be.
install_packages() {
    command -v dpkg >/dev/null || die "only Debian and Ubuntu are known here; install yourself: $*"
    local missing=() name
    for name in "$@"; do
        dpkg -s "$name" 2>/dev/null | grep -q '^Status: install ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" || {
        as_root apt-get update -qq || die "apt-get update failed"
        apt_install "${missing[@]}" || die "cannot install ${missing[*]}"
    }
}

apt_install() {
    local said
    said=$(as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" 2>&1) || {
        say "$said"
        return 1
    }
}

# make_venv [EXTRA]: .venv with the project in it, editable; made anew only if it must be.
make_venv() {
    local extra=${1:-} python what
    python=$(find_python)
    what=$(venv_wants "$python" "$extra")
    if [ "$(cat "$VENV/.made-for" 2>/dev/null)" = "$what" ] && "$VENV/bin/python" -c 'import fireflyfs' 2>/dev/null; then
        return
    fi
    say "making $VENV with $python"
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$VENV"
        "$python" -m venv "$VENV"
    fi
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}" >&2 \
        || die "pip could not install the project"
    printf '%s\n' "$what" >"$VENV/.made-for"
}

# What a fresh .venv was made for: an interpreter, a place, the dependencies, the extra. The dev extra
# includes what a plain install has.
venv_wants() {
    local extra=$2
    if [ -z "$extra" ] && grep -q 'extra=dev$' "$VENV/.made-for" 2>/dev/null; then
        extra=dev
    fi
    printf '%s %s %s extra=%s' "$("$1" -V 2>&1)" "$PWD" "$(sha256sum <pyproject.toml | cut -c1-16)" "$extra"
}

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null \
            && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    die "Python 3.11 or newer is needed; this machine has $(python3 -V 2>&1 || echo none)"
}
