# K3s' datastore is moved: K3s stays stopped, also through a reboot, until the copy is whole.
# The folder keeps what leads back: the settings from before, with the old endpoint.
stop_for_move() { # unit config moving moved
  umask 077
  mkdir -p "$4"
  # Those of an earlier move are of another datastore; a run of this one that was killed has left its mark.
  if [ -e "$2" ] && { [ ! -e "$3" ] || [ ! -e "$4/config.yaml" ]; }; then
    rm -f "$4"/datastore-*.pem
    for file in "${2%/*}"/datastore-*.pem; do # the next deploy writes those of the new one there
      if [ -e "$file" ]; then cp -p "$file" "$4/"; fi
    done
    cp -p "$2" "$4/.draft"
    mv -fT "$4/.draft" "$4/config.yaml"
  fi
  : >"$3"
  sync "$3" 2>/dev/null || :
  systemctl disable -q "$1"
  systemctl stop "$1"
  say did "$STEP" changed
}
end_move() { # moving: K3s is started by what follows
  rm -f "$1"
  say did "$STEP" changed
}
take_move_back() { # unit moving moved
  rm -rf "$2" "$3"
  systemctl enable -q "$1"
  systemctl reset-failed "$1" 2>/dev/null || :
  systemctl start --no-block "$1"
  say did "$STEP" changed
}
size_of() { # path...: of each that exists, its size in bytes and its SHA-256
  for path; do
    if [ -e "$path" ]; then say size "$path" "$(stat -c %s "$path")" "$(sha256sum <"$path" | cut -c1-64)"; fi
  done
}
piece_of() { # path MiB MiB: so many, after so many
  say piece "$(dd if="$1" bs=1M skip="$2" count="$3" 2>/dev/null | base64 -w0)"
}
newest_revision() { # a list is of the newest revision; its objects have older ones
  say newest "$(k3s kubectl get --raw '/api/v1/namespaces?limit=1' 2>/dev/null |
    grep -o '"resourceVersion": *"[0-9]*"' | tr -dc '0-9\n' | sort -n | tail -n 1)"
}
