#!/bin/sh
# An installer of our own writing with the contract of K3s' own: the same variables, files, unit and restart rules.
set -e

info() { echo "[INFO] " "$@"; }
fatal() { echo "[ERROR] " "$@" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fatal 'this must be run as root'
[ -d /run/systemd/system ] || fatal 'Can not find systemd or openrc to use as a process supervisor for k3s'

# --- what to install: the first word of the arguments or of INSTALL_K3S_EXEC may be server or agent
# shellcheck disable=SC2086
set -- $INSTALL_K3S_EXEC "$@"
case "$1" in
  server|agent) command=$1; shift ;;
  -*|"")
    if [ -z "$K3S_URL" ]; then command=server
    else
      [ -n "$K3S_TOKEN" ] || [ -n "$K3S_TOKEN_FILE" ] || fatal 'Defaulted k3s exec command to '\''agent'\'' because K3S_URL is defined, but K3S_TOKEN or K3S_TOKEN_FILE is not defined.'
      command=agent
    fi ;;
  *) command=$1; shift ;;
esac
case "$K3S_URL" in ''|https://*) ;; *) fatal "Only https:// URLs are supported for K3S_URL (have $K3S_URL)" ;; esac

name=k3s
[ "$command" = agent ] && name=k3s-agent
[ -z "$INSTALL_K3S_NAME" ] || name=k3s-$INSTALL_K3S_NAME
bin=${INSTALL_K3S_BIN_DIR:-/usr/local/bin}
units=${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}
unit=$units/$name.service
env=$unit.env
uninstall=$bin/k3s-uninstall.sh
[ "$command" = agent ] && uninstall=$bin/k3s-agent-uninstall.sh

hashes() { sha256sum "$bin/k3s" "$unit" "$env" 2>/dev/null | sha256sum; }
before=$(hashes)

# --- the binary
case "$INSTALL_K3S_SKIP_DOWNLOAD" in
  true|binary) [ -x "$bin/k3s" ] || fatal "Executable k3s binary not found at $bin/k3s" ;;
  *) fatal 'Download failed: this installer brings nothing; set INSTALL_K3S_SKIP_DOWNLOAD=true' ;;
esac

# --- links
if [ "$INSTALL_K3S_BIN_DIR_READ_ONLY" != true ] && [ "$INSTALL_K3S_SYMLINK" != skip ]; then
  for link in kubectl crictl ctr; do
    if [ "$INSTALL_K3S_SYMLINK" = force ] || { [ ! -e "$bin/$link" ] && ! command -v $link >/dev/null 2>&1; }; then
      info "Creating $bin/$link symlink to k3s"
      ln -sf k3s "$bin/$link"
    fi
  done
fi

# --- killall and uninstall
cat >"$bin/k3s-killall.sh" <<'EOS'
#!/bin/sh
[ "$(id -u)" = 0 ] || exec sudo --preserve-env=K3S_DATA_DIR "$0" "$@"
for unit in /etc/systemd/system/k3s*.service; do
  [ -s "$unit" ] && systemctl stop "$(basename "$unit")"
done
rm -rf /run/k3s
EOS
cat >"$uninstall" <<EOS
#!/bin/sh
set -x
[ "\$(id -u)" = 0 ] || exec sudo --preserve-env=K3S_DATA_DIR "\$0" "\$@"
$bin/k3s-killall.sh
systemctl disable $name
systemctl reset-failed $name
systemctl daemon-reload
rm -f $unit $env
if ls $units/k3s*.service >/dev/null 2>&1; then
  set +x; echo 'Additional k3s services installed, skipping uninstall of k3s'; exit 0
fi
for link in kubectl crictl ctr; do [ -L $bin/\$link ] && rm -f $bin/\$link; done
rm -rf /etc/rancher/k3s /run/k3s /run/flannel "\${K3S_DATA_DIR:-/var/lib/rancher/k3s}" /var/lib/kubelet/*
rm -f $bin/k3s $bin/k3s-killall.sh $uninstall
EOS
chmod 755 "$bin/k3s-killall.sh" "$uninstall"
chown root:root "$bin/k3s-killall.sh" "$uninstall"

# --- the environment file is written anew at each run, from this run's environment
umask 077
{ sh -c export | while read -r x v; do case $v in K3S_*|CONTAINERD_*|KINE_*) echo "${v}";; esac; done
  sh -c export | while read -r x v; do case $v in HTTP_PROXY*|HTTPS_PROXY*|NO_PROXY*|http_proxy*|https_proxy*|no_proxy*) echo "${v}";; esac; done
} | sed -e "s/='/=/" -e "s/'\$//" >"$env"
chmod 0600 "$env"

# --- the unit
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
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=$bin/k3s $command$(for word in "$@"; do printf " \\\\\n\t'%s'" "$word"; done)
EOS

[ "$INSTALL_K3S_SKIP_ENABLE" = true ] && exit 0
info "systemd: Enabling $name unit"
systemctl enable "$unit" >/dev/null
systemctl daemon-reload >/dev/null
[ "$INSTALL_K3S_SKIP_START" = true ] && exit 0
if [ "$before" = "$(hashes)" ] && [ "$INSTALL_K3S_FORCE_RESTART" != true ]; then
  info 'No change detected so skipping service start'
  exit 0
fi
info "systemd: Starting $name"
systemctl restart "$name"
