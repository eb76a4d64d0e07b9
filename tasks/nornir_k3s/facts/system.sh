# The machine as it describes itself.

fact_now() { say now "$(date +%s.%N)"; }

fact_system() ( # in a shell of its own: os-release sets variables
  PRETTY_NAME='' init=other manager=''
  # shellcheck source=/dev/null
  if [ -r /etc/os-release ]; then . /etc/os-release; fi
  if [ -d /run/systemd/system ]; then init=systemd; fi
  if command -v apt-get >/dev/null 2>&1; then manager=apt; fi
  if command -v dnf >/dev/null 2>&1; then manager="${manager:+$manager }dnf"; fi
  say system "$(uname -m)" "$(uname -r)" "$(uname -n)" "$(cat /etc/machine-id 2>/dev/null)" \
    "${PRETTY_NAME:-}" "$init" "$manager" "$(stat -fc %T /sys/fs/cgroup 2>/dev/null)" \
    "$(cat /proc/sys/fs/inotify/max_user_instances 2>/dev/null)" \
    "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)" \
    "$(df -Pk /var/lib 2>/dev/null | sed -n '2s/^[^ ]* *[^ ]* *[^ ]* *\([^ ]*\).*/\1/p')"
)

fact_distribution() ( # in a shell of its own: os-release sets variables
  ID='' ID_LIKE=''
  # shellcheck source=/dev/null
  if [ -r /etc/os-release ]; then . /etc/os-release; fi
  for one in $ID $ID_LIKE; do say distribution "$one"; done
)

fact_ssh_sessions() { # for logins that no Match block names
  sshd=$(command -v sshd) || sshd=/usr/sbin/sshd
  say ssh_sessions "$("$sshd" -T 2>/dev/null | sed -n 's/^maxsessions //p')"
}

fact_capacity() {
  say capacity "$(nproc 2>/dev/null)" "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([^ ]*\).*/\1/p')"
}
