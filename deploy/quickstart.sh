#!/bin/bash
# From a fresh clone to a mounted file system: bash deploy/quickstart.sh [MOUNTPOINT]
set -euo pipefail
mountpoint=${1:+$(realpath -m -- "$1")}
cd "$(dirname "$0")/.."
. deploy/lib/setup.sh

install_packages "${RUN_PACKAGES[@]}"
make_venv
fireflyfs=$PWD/$VENV/bin/fireflyfs

arguments=()
if [ -n "$mountpoint" ]; then
    [ -e "$mountpoint" ] || mkdir -p "$mountpoint" || true # what is wrong with it, up says
    arguments=(--mount "$mountpoint")
fi
state=$("$fireflyfs" up "${arguments[@]}" --json)
{ read -r mountpoint; read -r directory; read -r was_up; } < <(
    "$VENV/bin/python" -c 'import json, sys
up = json.load(sys.stdin)
print(up["mounts"][0]["mountpoint"], up["directory"], up["was_up"], sep="\n")' <<<"$state"
)
if [ "$was_up" = True ]; then
    say "FireflyFS is up already."
fi

# A real file through the mount: write, force to disk, read back, compare.
probe=$mountpoint/quickstart.$$
trap 'rm -f "$probe"' EXIT
dd if=/dev/urandom of="$probe" bs=1M count=8 conv=fsync status=none
written=$(sha256sum <"$probe")
cp "$probe" "$probe.copy"
read_back=$(sha256sum <"$probe.copy")
rm -f "$probe" "$probe.copy"
[ "$written" = "$read_back" ] || die "what was read back is not what was written"
say "Wrote and read back 8 MiB through the mount: they are equal."

"$fireflyfs" status --dir "$directory"
cat <<END

FireflyFS is mounted on $mountpoint
  look at it   $fireflyfs status --dir $directory
  stop it      $fireflyfs down --dir $directory
END
