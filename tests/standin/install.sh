#!/bin/sh
# An installer of our own writing with the contract of K3s' own: the same variables, files, unit and restart rules.
# It brings nothing: the binary must lie in place (INSTALL_K3S_SKIP_DOWNLOAD=true).
set -e
set -o noglob

info() { echo "[INFO] " "$@"; }
warn() { echo "[WARN] " "$@" >&2; }
fatal() { echo "[ERROR] " "$@" >&2; exit 1; }
quote() { for word in "$@"; do printf "%s\n" "$word" | sed "s/'/'\\\\''/g;1s/^/'/;\$s/\$/'/"; done; }

choose_command() {
  case "$1" in
    -*|"")
      if [ -z "$K3S_URL" ]; then command=server
      elif [ -z "$K3S_TOKEN" ] && [ -z "$K3S_TOKEN_FILE" ]; then
        fatal "Defaulted k3s exec command to 'agent' because K3S_URL is defined, but K3S_TOKEN or K3S_TOKEN_FILE is not defined."
      else command=agent
      fi ;;
    *) command=$1; shift ;;
  esac
  args=$(for word in "$@"; do printf "\t%s \\\\\n" "$(quote "$word")"; done)
}

check_environment() {
  [ -x /bin/systemctl ] || [ -x /usr/bin/systemctl ] || fatal 'Can not find systemd or openrc to use as a process supervisor for k3s'
  case "$K3S_URL" in ''|https://*) ;; *) fatal "Only https:// URLs are supported for K3S_URL (have ${K3S_URL})" ;; esac
  [ "$(id -u)" = 0 ] || fatal 'This installer must be run as root'
}

set_names() {
  if [ -n "$INSTALL_K3S_NAME" ]; then name=k3s-$INSTALL_K3S_NAME
  elif [ "$command" = server ]; then name=k3s
  else name=k3s-$command
  fi
  bin=${INSTALL_K3S_BIN_DIR:-/usr/local/bin}
  units=${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}
  unit=$units/$name.service
  env=$units/$name.service.env
  uninstall=$bin/${UNINSTALL_K3S_SH:-$name-uninstall.sh}
  killall=$bin/${KILLALL_K3S_SH:-k3s-killall.sh}
  [ "$INSTALL_K3S_BIN_DIR_READ_ONLY" != true ] || INSTALL_K3S_SKIP_DOWNLOAD=true
}

hashes() { sha256sum "$bin/k3s" "$unit" "$env" 2>&1 || true; }

check_binary() {
  case "$INSTALL_K3S_SKIP_DOWNLOAD" in
    true|binary)
      info 'Skipping k3s download and verify'
      [ -x "$bin/k3s" ] || fatal "Executable k3s binary not found at $bin/k3s" ;;
    *) fatal 'Download failed: this installer brings nothing' ;;
  esac
  case "$INSTALL_K3S_SKIP_DOWNLOAD$INSTALL_K3S_SKIP_SELINUX_RPM" in *true*) info 'Skipping installation of SELinux RPM' ;; esac
}

make_links() {
  [ "$INSTALL_K3S_BIN_DIR_READ_ONLY" != true ] && [ "$INSTALL_K3S_SYMLINK" != skip ] || return 0
  for link in kubectl crictl ctr; do
    if [ -e "$bin/$link" ] && [ "$INSTALL_K3S_SYMLINK" != force ]; then
      info "Skipping $bin/$link symlink to k3s, already exists"
      continue
    fi
    found=$(command -v $link 2>/dev/null || true)
    if [ -z "$found" ] || [ "$INSTALL_K3S_SYMLINK" = force ]; then
      info "Creating $bin/$link symlink to k3s"
      ln -sf k3s "$bin/$link"
    else
      info "Skipping $bin/$link symlink to k3s, command exists in PATH at $found"
    fi
  done
}

write_killall() {
  [ "$INSTALL_K3S_BIN_DIR_READ_ONLY" != true ] || return 0
  info "Creating killall script $killall"
  cat >"$killall" <<'EOS'
#!/bin/sh
[ "$(id -u)" = 0 ] || exec sudo --preserve-env=K3S_DATA_DIR "$0" "$@"
set -x
for service in /etc/systemd/system/k3s*.service; do
  [ -s "$service" ] && systemctl stop "$(basename "$service")"
done
for mounted in $(awk '$2 ~ "^(/run/k3s|/var/lib/kubelet/pods|/var/lib/kubelet/plugins|/run/netns/cni-)" {print $2}' /proc/self/mounts | sort -r); do
  umount -f "$mounted" && rm -rf "$mounted"
done
for link in cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 kube-ipvs0; do
  ip link delete "$link" 2>/dev/null
done
rm -rf /var/lib/cni/ /run/k3s
exit 0
EOS
  chmod 755 "$killall"
  chown root:root "$killall"
}

write_uninstall() {
  [ "$INSTALL_K3S_BIN_DIR_READ_ONLY" != true ] || return 0
  info "Creating uninstall script $uninstall"
  cat >"$uninstall" <<EOS
#!/bin/sh
set -x
[ "\$(id -u)" = 0 ] || exec sudo --preserve-env=K3S_DATA_DIR "\$0" "\$@"
K3S_DATA_DIR=\${K3S_DATA_DIR:-/var/lib/rancher/k3s}
$killall
systemctl disable $name
systemctl reset-failed $name
systemctl daemon-reload
rm -f $unit
rm -f $env
remove_uninstall() { rm -f $uninstall; }
trap remove_uninstall EXIT
if ls $units/k3s*.service >/dev/null 2>&1; then
  set +x; echo 'Additional k3s services installed, skipping uninstall of k3s'; set -x
  exit
fi
for link in kubectl crictl ctr; do
  if [ -L $bin/\$link ]; then rm -f $bin/\$link; fi
done
rm -rf /etc/rancher/k3s
rm -rf /run/k3s
rm -rf /run/flannel
rm -rf "\$K3S_DATA_DIR"
# The lab may have a mount there.
rm -rf /var/lib/kubelet 2>/dev/null || true
rm -f $bin/k3s
rm -f $killall
EOS
  chmod 755 "$uninstall"
  chown root:root "$uninstall"
}

# Written anew at each run, from this run's environment alone.
write_environment() {
  info "env: Creating environment file $env"
  rm -f "$env"
  (umask 077; : >"$env")
  # As K3s' own does, which loses what `read` and an unquoted word lose.
  # shellcheck disable=SC2034,SC2086,SC2162
  sh -c export | while read x v; do echo $v; done | grep -E '^(K3S|CONTAINERD|KINE)_' >>"$env" || true
  # shellcheck disable=SC2034,SC2086,SC2162
  sh -c export | while read x v; do echo $v; done | grep -Ei '^(NO|HTTP|HTTPS)_PROXY' >>"$env" || true
}

write_unit() {
  info "systemd: Creating service file $unit"
  cat >"$unit" <<EOS
[Unit]
Description=Lightweight Kubernetes
Documentation=https://k3s.io
Wants=network-online.target
After=network-online.target

[Install]
WantedBy=multi-user.target

[Service]
Type=${INSTALL_K3S_TYPE:-notify}
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
EnvironmentFile=-$env
KillMode=process
Delegate=yes
User=root
# Having non-zero Limit*s causes performance problems due to accounting overhead
# in the kernel. We recommend using cgroups to do container-local accounting.
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=$bin/k3s \\
    $command \\
$args

EOS
}

start_service() {
  grep -qs memory /proc/cgroups /sys/fs/cgroup/cgroup.controllers || info 'Failed to find memory cgroup, you may need to add "cgroup_memory=1 cgroup_enable=memory" to your linux cmdline'
  [ "$INSTALL_K3S_SKIP_ENABLE" != true ] || return 0
  info "systemd: Enabling $name unit"
  systemctl enable "$unit" >/dev/null
  systemctl daemon-reload >/dev/null
  [ "$INSTALL_K3S_SKIP_START" != true ] || return 0
  if [ "$before" = "$(hashes)" ] && [ "$INSTALL_K3S_FORCE_RESTART" != true ]; then
    info 'No change detected so skipping service start'
    return 0
  fi
  info "systemd: Starting $name"
  systemctl restart "$name"
}

# shellcheck disable=SC2046  # `quote` makes them words
eval set -- $(printf '%s' "$INSTALL_K3S_EXEC" | sed 's/[][!#$%&()*;<=>?\\`{|}]/\\&/g') $(quote "$@")
check_environment
choose_command "$@"
set_names
before=$(hashes)
check_binary
make_links
write_killall
write_uninstall
systemctl disable "$name" >/dev/null 2>&1 || true
rm -f "$unit" "$env"
write_environment
write_unit
start_service
