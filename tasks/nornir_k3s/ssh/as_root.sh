#!/bin/sh
# Runs a command as root: as_root.sh SKIP COMMAND [ARGUMENT...]
#
# The first line of stdin is the sudo password, maybe empty; `read` takes it byte by byte and leaves the rest.
# - A password is tried out first: with a wrong one, sudo would take lines of the script for further attempts.
# - Whether sudo reads the password is not known (NOPASSWD, cached credentials): SKIP, the text of skip_password.sh, runs
#   as root and skips everything up to the marker line.
# - sudo may read ahead: the attempts get a stdin of their own.
#
# shell.py sends this as one line: each line here must be complete when joined to the next one by `;`, or end with `\`.
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" LC_ALL=C
export PATH LC_ALL
skip=$1
shift
IFS= read -r pw
if [ "$(id -u)" = 0 ]
then exec "$@"
elif [ -z "$pw" ]
then said=$(sudo -n true </dev/null 2>&1) && exec sudo -n -- "$@"
else said=$(printf "%s\n" "$pw" | sudo -k -S -p "" -- true 2>&1) && { \
  { printf "%s\n%s\n" "$pw" "nornir-k3s: end of the password"; exec cat; } | \
  sudo -k -S -p "" -- /bin/sh -c "$skip" skip "$@"
exit; }
fi
printf "%s%s\n" "nornir-k3s: sudo: " "$said" >&2
exit 77
