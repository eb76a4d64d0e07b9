# Files that must look as the inventory asks for, and what this tool has noted about them.

fact_files() { # path sha256 show-or-hide: the content comes with it where it differs, is not secret and is small
  if [ -L "$1" ]; then say files "$1" link 0 - - 0 0 0 "$(readlink "$1")"
  elif [ -f "$1" ]; then
    path=$1 wanted=$2 show=$3
    # shellcheck disable=SC2046  # five words
    set -- $(stat -c '%a %U %G %s %Z %Y' "$path")
    sum=$(sha256sum <"$path")
    sum=${sum%% *}
    if [ "$sum" = "$wanted" ] || [ "$show" = hide ] || [ "$4" -gt 65536 ]; then
      say files "$path" file "$1" "$2" "$3" "$4" "$5" "$6" "$sum"
    else
      say files "$path" file "$1" "$2" "$3" "$4" "$5" "$6" "$sum" "$(base64 -w0 <"$path")"
    fi
  elif [ -e "$1" ]; then say files "$1" other 0 - - 0 0 0 -
  else say files "$1" absent 0 - - 0 0 0 -
  fi
}

# A receipt says what we put there and how it looked then; only a file that still looks so is not hashed again.
fact_artifacts() { # state-folder deep-or-quick path...
  state=$1 deep=$2
  shift 2
  for path in "$@"; do artifact "$path"; done
}
artifact() {
  if [ ! -f "$1" ]; then
    say artifacts "$1" - 0 0
    return
  fi
  now=$(stat -c '%s %Y %Z %i %a' "$1")
  mode=${now##* } now=${now% *}
  written=${now#* } written=${written%% *}
  if [ "$deep" = quick ] && [ -f "$state/receipts" ]; then
    while IFS="$TAB" read -r rpath rstat rsum; do
      if [ "$rpath" = "$1" ] && [ "$rstat" = "$now" ]; then
        say artifacts "$1" "$rsum" "$mode" "$written"
        return
      fi
    done <"$state/receipts"
  fi
  sum=$(sha256sum <"$1")
  say artifacts "$1" "${sum%% *}" "$mode" "$written"
}
fact_images() { # state-folder deep-or-quick folder
  state=$1 deep=$2
  for path in "$3"/*.tar*; do [ ! -f "$path" ] || artifact "$path"; done
}

# Whoever holds this lock changes the cluster, maybe from another controller. Ours is shared and let go at once.
fact_work() { # folder; first of all facts: what is read after its number is out of date when that has risen
  [ -r "$1/owner" ] || return 0
  number=0 known=- held=no
  read -r number known <"$1/owner" || :
  case $number in '' | *[!0-9]*) number=0 known=- ;; esac # it is not ours: nobody shall have to remove it
  if [ -r "$1/lock" ] && command -v flock >/dev/null 2>&1; then
    (exec 9<"$1/lock" && flock -ns 9) || held=yes
  fi
  epoch=-
  [ ! -r "$1/epoch" ] || read -r epoch <"$1/epoch" || :
  say work "$held" "$number" "$known" "$epoch"
}

fact_present() { for path in "$@"; do [ ! -e "$path" ] || say present "$path"; done; }

# Whoever holds the lock changes the host: a deploy, maybe from another controller. Ours is shared and let go at once.
fact_ledger() { # state-folder
  if [ -r "$1/files" ]; then while IFS= read -r path; do say ledger file "$path" ''; done <"$1/files"; fi
  if [ -r "$1/settled" ]; then
    while IFS="$TAB" read -r path changed; do say ledger settled "$path" "$changed"; done <"$1/settled"
  fi
  if [ -r "$1/same" ]; then
    while IFS="$TAB" read -r path sum started; do say ledger same "$path" "$sum $started"; done <"$1/same"
  fi
  for path in "$1"/pending/*; do [ ! -e "$path" ] || say ledger pending "${path##*/}" ''; done
  for path in "$1"/reloaded/*; do [ ! -e "$path" ] || say ledger reloaded "${path##*/}" "$(stat -c %Y "$path")"; done
  for path in "$1"/drained/*; do [ ! -e "$path" ] || say ledger drained "${path##*/}" ''; done
  if [ -e "$1/cordoned" ]; then say ledger cordoned '' ''; fi
  if [ -r "$1/installed" ]; then say ledger installed "$(cat "$1/installed")" ''; fi
  if [ -r "$1/lock" ] && command -v flock >/dev/null 2>&1; then
    (exec 9<"$1/lock" && flock -ns 9) || say ledger locked '' ''
  fi
}
