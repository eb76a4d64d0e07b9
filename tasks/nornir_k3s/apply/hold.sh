#!/bin/sh
# Holds the lock of a run on this host, until stdin ends or no line comes in time: hold.sh FOLDER SECONDS PATIENCE OWNER
#
# The process ends with its connection, and the lock with it: that of a run that is dead needs nobody to remove it.
# ssh/shell.py sends this as one line: each line here must be complete when joined to the next one by `;`, or end with `\`.
# The number rises when the line `begin` comes, and at the end: what was read before is out of date then. A reboot empties
# the folder, and the number begins at 0 again, in another epoch.
set -u
umask 077
folder=$1 seconds=$2 patience=$3 owner=$4
trap '' PIPE HUP
mkdir -p "$folder" || exit 1
exec 8>>"$folder/lock" || exit 1
note() { printf '%s %s\n' "$1" "$2" >"$folder/owner.draft" && mv -f "$folder/owner.draft" "$folder/owner"; }
# What a login prints may end in the middle of a line.
echo
recall() { number=0 known=-; [ ! -r "$folder/owner" ] || read -r number known <"$folder/owner" || :; sound; }
sound() { case $number in '' | *[!0-9]*) number=0 known=- ;; esac; }
# shellcheck disable=SC2016  # the inner shell has the line
one='IFS= read -r line && printf %s "$line"'
next() { timeout --foreground "$seconds" sh -c "$one" 8>&-; }
flock -w "$patience" 8 || { [ $? = 1 ] || exit 1; recall; printf '@busy\t%s\t%s\n' "$number" "$known"; exit 75; }
[ -s "$folder/epoch" ] || cat /proc/sys/kernel/random/uuid >"$folder/epoch"
read -r epoch <"$folder/epoch" || epoch=-
recall
begun=0
note "$number" "$owner"
printf '@held\t%s\t%s\n' "$number" "$epoch"
while line=$(next)
do [ "$line" != begin ] || [ "$begun" = 1 ] || { begun=1 number=$((number + 1)); note "$number" "$owner"; }
printf '@beat\t%s\n' "$line"
done
note "$((number + begun))" -
