#!/bin/sh
# start_container.sh CGROUP_FOLDER... -- COMMAND...
# Join the control groups, then run COMMAND in a session of its own. It returns as soon as COMMAND is on its own in the
# groups, where `lab down` finds it. Status 133 of systemd-nspawn asks for a reboot: COMMAND is run again.
set -e
while [ "$1" != -- ]; do
    echo $$ > "$1/cgroup.procs"
    shift
done
shift
# shellcheck disable=SC2016  # the inner shell expands them
exec setsid --fork sh -c 'while "$0" "$@"; [ $? = 133 ]; do :; done' "$@"
