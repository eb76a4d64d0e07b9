# File systems.

fact_mounts() { # path...
  for path in "$@"; do
    # The nearest folder that exists says where its content will lie.
    folder=$path
    while [ ! -d "$folder" ]; do
      folder=${folder%/*}
      folder=${folder:-/}
    done
    say mounts "$path" "$(stat -f -c %T "$folder")" \
      "$(df -Pk "$folder" 2>/dev/null | sed -n '2s/^[^ ]* *[^ ]* *[^ ]* *\([^ ]*\).*/\1/p')" \
      "$(findmnt -no OPTIONS -T "$folder" 2>/dev/null)"
  done
}
fact_space() { # path...
  # shellcheck disable=SC2046  # four words
  for path in "$@"; do say space "$path" $(stat -f -c '%a %S %d %c' "$path"); done
}
