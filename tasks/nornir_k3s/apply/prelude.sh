# What every script that changes a host begins with. STATE and PREVIOUS are this tool's folders there.
set -eu
STEP=start
trap '[ $? = 0 ] || say fail "$STEP"' EXIT
# shellcheck disable=SC2174  # the parent has a mode of its own
mkdir -p -m 700 "$STATE" "$STATE/pending"
# The script of a run that was killed may still be running: it is let finish.
exec 9>"$STATE/lock"
flock -w 300 9 || { echo 'another run is in progress on this host' >&2; exit 75; }
