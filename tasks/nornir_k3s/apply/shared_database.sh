# What is added to a database server that others use, too.

# PostgreSQL takes the first line that fits: these come first, and name this cluster's database, user and servers only.
hba_lines() { # begin end text; no text removes them
  file=$(postgresql -c 'SHOW hba_file')
  draft=$file.nornir-k3s
  { printf '%s' "$3"; without_hba_lines "$1" "$2" <"$file"; } >"$draft"
  if ! cmp -s "$draft" "$file"; then
    [ -z "$3" ] || [ -e "$file.before-nornir-k3s" ] || cp -p "$file" "$file.before-nornir-k3s"
    chown --reference="$file" "$draft"
    chmod --reference="$file" "$draft"
    mv -f "$draft" "$file"
    label "$file"
    postgresql -c 'SELECT pg_reload_conf()' >/dev/null
  fi
  rm -f "$draft"
  [ -n "$3" ] || rm -f "$file.before-nornir-k3s"
}
without_hba_lines() { # begin end
  inside=''
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      "$1") inside=yes ;;
      "$2") inside='' ;;
      *) [ -n "$inside" ] || printf '%s\n' "$line" ;;
    esac
  done
}
