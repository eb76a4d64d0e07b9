# What the controller asks a host for in a drill.
DRILL=nornir-k3s-drill FILE=/run/nornir-k3s-drill

drill_begin() { # text of the fault, base64
  if systemctl -q is-active "$DRILL.service" || [ -e "$FILE" ]; then
    echo "a fault of a drill is in progress on this host; to end it: systemctl stop $DRILL" >&2
    return 1
  fi
  printf '%s\n' "$1" | base64 -d >"$FILE" || return 1
  systemctl reset-failed "$DRILL.service" 2>/dev/null
  if ! systemd-run --quiet --unit="$DRILL" -p TimeoutStopSec=300 -p "ExecStopPost=-/bin/sh $FILE undo" \
    /bin/sh "$FILE" make; then
    rm -f "$FILE"
    return 1
  fi
}

drill_heal() { # ends the fault; nothing where there is none
  if [ -e "$FILE" ]; then
    systemctl stop "$DRILL.service" 2>/dev/null
    # The unit has undone it and removed the file, unless that failed, or the unit was never there.
    if [ -e "$FILE" ]; then sh "$FILE" undo; fi
  fi
  systemctl reset-failed "$DRILL.service" 2>/dev/null
  if [ -e "$FILE" ]; then return 1; fi
}

drill_look() { # units: which are active, K3s' processes, what a fault needs, and whether one is in progress
  for units in "$@"; do
    for unit in $units; do if systemctl cat -- "$unit" >/dev/null 2>&1; then break; fi; done
    say active "$unit" "$(systemctl is-active "$unit")"
  done
  for unit in k3s.service k3s-agent.service; do
    say process "$unit" "$(systemctl show -p MainPID --value "$unit" 2>/dev/null)"
  done
  say cut "$(way_to_cut)"
  say run "$(command -v systemd-run)"
  if systemctl -q is-active "$DRILL.service" || [ -e "$FILE" ]; then say fault yes; else say fault no; fi
}

drill_objects() { # k3s namespace selector
  # A server that was cut off, or whose datastore was away, may need a moment more.
  for attempt in 1 2 3 4 5 6; do
    names=$("$1" kubectl get configmaps -n "$2" -l "$3" -o name) && break
    [ "$attempt" -lt 6 ] || return 1
    sleep 5
  done
  for one in $names; do say object "${one#*/}"; done
}

drill_leads() { # URL folder-of-certificates: whether this member of etcd leads
  ETCDCTL_API=3 etcdctl "--endpoints=$1" "--cacert=$2/ca.pem" "--cert=$2/cert.pem" "--key=$2/key.pem" \
    endpoint status -w json 2>/dev/null | base64 -w0 | while read -r text || [ -n "$text" ]; do say etcd "$text"; done
}
