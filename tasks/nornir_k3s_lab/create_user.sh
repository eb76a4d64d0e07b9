#!/bin/sh
# create_user.sh LOGIN PUBLIC_KEY
# Create the user who logs in to a host, with sudo unless it is root. Standard input holds the password that sudo asks
# for; when it is empty, sudo does not ask.
set -eu
login=$1
key=$2
password=$(cat)

if [ "$login" != root ]; then
    id -u "$login" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$login"
    if [ -n "$password" ]; then
        printf '%s:%s\n' "$login" "$password" | chpasswd
        rule='ALL=(ALL:ALL) ALL'
    else
        usermod --password '*' "$login"
        rule='ALL=(ALL:ALL) NOPASSWD: ALL'
    fi
    (umask 0337; printf '%s %s\n' "$login" "$rule" > /etc/sudoers.d/lab)
fi
home=$(getent passwd "$login" | cut -d: -f6)
mkdir -p "$home/.ssh"
printf '%s\n' "$key" > "$home/.ssh/authorized_keys"
chmod 700 "$home/.ssh"
chmod 600 "$home/.ssh/authorized_keys"
chown -R "$login:" "$home/.ssh"
