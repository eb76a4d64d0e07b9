#!/bin/sh
# Skips stdin up to the marker line of as_root.sh, then runs the command in the arguments.
while IFS= read -r line && [ "$line" != "nornir-k3s: end of the password" ]
do :
done
exec "$@"
