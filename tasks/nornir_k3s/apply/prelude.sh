# What every script that changes a host begins with. STATE and PREVIOUS are this tool's folders there.
set -eu
STEP=start
trap '[ $? = 0 ] || say fail "$STEP"' EXIT
# shellcheck disable=SC2174  # the parent has a mode of its own
mkdir -p -m 700 "$STATE" "$STATE/pending"
# The script of a run that was killed may still be running: it is let finish.
exec 9>"$STATE/lock"
flock -w 300 9 || { echo 'another run is in progress on this host' >&2; exit 75; }
# What the host had before this tool came: reset takes nothing of that away, and leaves units as they were.
note_before() {
  getent passwd | sed 's/:.*//; s/^/user /'
  getent group | sed 's/:.*//; s/^/group /'
  for path in /etc/* /var/lib/* /var/log/* /var/cache/*; do echo "path $path"; done
  systemctl list-unit-files --state=enabled --no-legend --plain 2>/dev/null | sed 's/ .*//; s/^/enabled /'
  systemctl list-units --type=service --state=active --no-legend --plain 2>/dev/null | sed 's/ .*//; s/^/active /'
}
if [ ! -e "$STATE/before" ] && [ ! -s "$STATE/files" ] && [ ! -s "$STATE/packages" ]; then
  note_before >"$STATE/before.draft" || :
  mv -f "$STATE/before.draft" "$STATE/before"
fi
