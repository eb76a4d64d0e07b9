# Answers are records: one a line, words with tabs between them; the first is `@` and the name of what is said.
TAB=$(printf '\t')
NEWLINE='
'
say() {
  record="@$1"
  shift
  for word in "$@"; do
    case $word in *"$TAB"* | *"$NEWLINE"*) word=$(printf '%s' "$word" | tr '\t\n' '  ') ;; esac
    record="$record$TAB$word"
  done
  printf '%s\n' "$record"
}
