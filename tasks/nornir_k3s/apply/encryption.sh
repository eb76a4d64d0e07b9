# The keys of secrets: K3s' own command on one server, and a note of what is being done, for a run that goes on from there
# (docs.k3s.io: cli/secrets-encrypt.md).
note_keys() { # note goal data-folder: rotate gets the hash of the keys that are to be replaced
  case $2 in
  '') rm -f "$1" ;;
  rotate) printf 'rotate %s' "$(sha256sum <"$3/server/cred/encryption-config.json" | cut -c1-64)" >"$1" ;;
  *) printf '%s' "$2" >"$1" ;;
  esac
}
# What it was asked for already is not done again. A server that has just started does not know the others' keys yet.
change_keys() { # k3s data-folder verb stages seconds option...
  k3s=$1 state=$2/server/cred/encryption-state.json verb=$3 stages=" $4 " limit=$5 begin=$(date +%s)
  shift 5
  while :; do
    case $stages in
    *" $(cut -d- -f1 <"$state" 2>/dev/null) "*) ;;
    *)
      say did "$STEP" same
      return 0
      ;;
    esac
    if said=$(timeout 120 "$k3s" secrets-encrypt "$verb" "$@" 2>&1); then break; fi
    if [ $(($(date +%s) - begin)) -ge "$limit" ]; then
      printf '%s\n' "$said" >&2
      journalctl -u k3s.service -o cat --no-pager --since "@$begin" 2>/dev/null | grep 'secret-encrypt error' | tail -n 1 >&2
      return 1
    fi
    sleep 1
  done
  say did "$STEP" changed
}
status_of_keys() { # k3s field
  timeout 30 "$1" secrets-encrypt status -o json 2>/dev/null | tr -d ' \t\n' | sed -n "s/.*\"$2\":\"\\{0,1\\}\\([a-z_]*\\).*/\\1/p"
}
# Every secret is written again; a K3s that ends meanwhile begins it anew only when it is asked again.
wait_for_keys() { # k3s seconds
  begin=$(date +%s) silent=0 started=$(systemctl show -p ExecMainStartTimestamp k3s.service)
  while :; do
    stage=$(status_of_keys "$1" stage)
    case $stage in
    reencrypt_active) silent=0 ;;
    '') silent=$((silent + 1)) ;;
    *) break ;;
    esac
    [ "$silent" -lt 60 ] || { echo 'K3s does not answer' >&2; return 1; }
    [ $(($(date +%s) - begin)) -lt "$2" ] || { echo "secrets are still being encrypted again after $2 s" >&2; return 1; }
    sleep 1
  done
  [ "$(systemctl show -p ExecMainStartTimestamp k3s.service)" = "$started" ] ||
    { echo 'K3s was restarted while it encrypted secrets anew' >&2; return 1; }
}
# Without keys here, each of the others would make its own when it starts with the setting.
require_keys() { # data-folder
  for name in config state; do
    [ -s "$1/server/cred/encryption-$name.json" ] || { echo "K3s has made no encryption-$name.json" >&2; return 1; }
  done
}
require_stage() { # data-folder stage
  stage=$(cut -d- -f1 <"$1/server/cred/encryption-state.json")
  [ "$stage" = "$2" ] || { echo "the stage of the keys is $stage, expected $2: see the journal of K3s" >&2; return 1; }
}
# Each server shows its hash some seconds after it is ready.
keys_match() { # k3s seconds
  begin=$(date +%s)
  until [ "$(status_of_keys "$1" hashmatch)" = true ]; do
    [ $(($(date +%s) - begin)) -lt "$2" ] || { timeout 30 "$1" secrets-encrypt status 2>&1 | grep Hashes >&2; return 1; }
    sleep 1
  done
}
