#!/bin/sh
# The peer of the benchmark: the same work as a script of an administrator who knows ssh well. Everything that can run in
# parallel does, and nothing is checked before it is changed.
#
#   by_hand.sh deploy FOLDER    make a cluster of eight bare hosts, and write its FOLDER/by-hand.kubeconfig
#   by_hand.sh upgrade FOLDER   replace K3s by that in FOLDER/next, of the version FOLDER/version, one node after the other
#   by_hand.sh gather FOLDER    run the script FOLDER/scripts/HOST on each host in parallel
#   by_hand.sh push FOLDER      copy FOLDER/file to /var/tmp/bench of the five nodes in parallel
#
# FOLDER holds ssh_config, bundle, token, datastore-password, lab/sudo-password and settings, lines for all K3s configs.
# shellcheck disable=SC2086  # variables that hold several hosts are split on purpose
set -eu
work=$1
folder=$2
net=10.78.0
vip=$net.100
servers='s1 s2 s3'
agents='a1 a2'
balancers='lb1 lb2'
everybody="db1 $servers $agents $balancers"
shared='-o ControlMaster=no'
roles=$(dirname "$0")/../tasks/nornir_k3s/roles # the scripts for HAProxy and keepalived are the same on both sides

address() {
  case $1 in
    db1) echo $net.11 ;;
    s1) echo $net.12 ;; s2) echo $net.13 ;; s3) echo $net.14 ;;
    a1) echo $net.15 ;; a2) echo $net.16 ;;
    lb1) echo $net.17 ;; lb2) echo $net.18 ;;
  esac
}

# on HOST COMMAND: as root, with this function's stdin. On s3 sudo asks for a password.
on() {
  # shellcheck disable=SC2086
  case $1 in
    s3) cat "$folder/lab/sudo-password" - | ssh -F "$folder/ssh_config" $shared "$1" "sudo -k -S -p '' $2" ;;
    *) ssh -F "$folder/ssh_config" $shared "$1" "sudo -n $2" ;;
  esac
}

# each FUNCTION HOST…: run a function for all hosts in parallel; fails when one does.
each() {
  todo=$1 pids=
  shift
  for name; do
    $todo "$name" &
    pids="$pids $!"
  done
  # shellcheck disable=SC2086
  joined $pids
}

joined() {
  for pid; do wait "$pid" || return 1; done
}

# put FILE HOST PATH MODE
put() {
  on "$2" "sh -c 'mkdir -p $(dirname "$3") && cat >$3 && chmod $4 $3'" <"$1"
}

# --- one connection for each host, used by all that follows

open_connection() {
  # shellcheck disable=SC2086
  ssh -F "$folder/ssh_config" $shared "$1" true
}

close_connections() {
  for name in $everybody; do
    # shellcheck disable=SC2086
    ssh -F "$folder/ssh_config" $shared -O exit "$name" 2>/dev/null || :
  done
}

# --- the datastore

# make_keys: a CA for the datastore, and what it signs for it, in $scratch
make_keys() {
  for name in ca db1; do
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$scratch/$name.key"
  done
  openssl req -x509 -key "$scratch/ca.key" -days 7300 -subj '/CN=datastore CA' -out "$scratch/ca.pem"
  echo "subjectAltName = IP:$(address db1)" >"$scratch/names"
  openssl req -new -key "$scratch/db1.key" -subj /CN=db1 |
    openssl x509 -req -CA "$scratch/ca.pem" -CAkey "$scratch/ca.key" -CAcreateserial -days 365 \
      -extfile "$scratch/names" -out "$scratch/db1.pem" 2>/dev/null
}

stage_datastore() {
  on db1 'sh -s' <<END
set -e
export DEBIAN_FRONTEND=noninteractive
{ apt-get -qy update && apt-get -qy --no-install-recommends install mariadb-server; } </dev/null >/dev/null
(umask 027
cat >/etc/mysql/k3s-ca.pem <<'PEM'
$(cat "$scratch/ca.pem")
PEM
cat >/etc/mysql/k3s-cert.pem <<'PEM'
$(cat "$scratch/db1.pem")
PEM
cat >/etc/mysql/k3s-key.pem <<'PEM'
$(cat "$scratch/db1.key")
PEM
chgrp mysql /etc/mysql/k3s-*.pem)
cat >/etc/mysql/mariadb.conf.d/90-k3s.cnf <<'CNF'
[mysqld]
ssl_ca = /etc/mysql/k3s-ca.pem
ssl_cert = /etc/mysql/k3s-cert.pem
ssl_key = /etc/mysql/k3s-key.pem
bind-address = $(address db1)
port = 3306
auto_increment_increment = 1
loose_innodb_snapshot_isolation = OFF
skip_name_resolve = ON
CNF
cat >/etc/mysql/mariadb.conf.d/90-k3s-live.cnf <<'CNF'
[mysqld]
max_connections = 550
CNF
systemctl restart mariadb
mariadb <<'SQL'
CREATE DATABASE k3s;
$(for server in $servers; do
  echo "CREATE USER 'k3s'@'$(address "$server")' IDENTIFIED BY '$(cat "$folder/datastore-password")' REQUIRE SSL;"
  echo "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON k3s.* TO 'k3s'@'$(address "$server")';"
done)
SQL
END
}

# --- servers and agents

# install_k3s HOST ROLE: everything but the start
install_k3s() {
  put "$folder/bundle/k3s" "$1" /usr/local/bin/k3s 755
  put "$folder/bundle/install.sh" "$1" /root/install.sh 755
  for image in "$folder"/bundle/images/*.tar*; do
    [ ! -e "$image" ] || put "$image" "$1" "/var/lib/rancher/k3s/agent/images/${image##*/}" 644
  done
  on "$1" "env INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_SKIP_START=true INSTALL_K3S_SKIP_SELINUX_RPM=true \
    sh /root/install.sh $2" </dev/null >/dev/null
}

stage_server() {
  install_k3s "$1" server
  on "$1" 'sh -s' <<END
set -e
umask 077
mkdir -p -m 755 /etc/rancher/k3s
cat >/etc/rancher/k3s/datastore-cafile.pem <<'PEM'
$(cat "$scratch/ca.pem")
PEM
cat >/etc/rancher/k3s/config.yaml <<'YAML'
token: $(cat "$folder/token")
datastore-endpoint: mysql://k3s:$(cat "$folder/datastore-password")@tcp($(address db1):3306)/k3s?timeout=10s
datastore-cafile: /etc/rancher/k3s/datastore-cafile.pem
tls-san:
- $vip
node-name: $1
node-ip:
- $(address "$1")
node-taint:
- CriticalAddonsOnly=true:NoExecute
flannel-backend: host-gw
disable:
- traefik
- metrics-server
- servicelb
- local-storage
- coredns
$(cat "$folder/settings")
YAML
END
}

start_server() {
  on "$1" 'sh -s' <<END
set -e
systemctl start k3s
until [ "\$(k3s kubectl get --raw /readyz 2>/dev/null)" = ok ]; do sleep 0.3; done
until k3s kubectl get node $1 --no-headers 2>/dev/null | grep -q ' Ready'; do sleep 0.3; done
END
}

start_agent() {
  on "$1" 'sh -s' <<END
set -e
umask 077
mkdir -p -m 755 /etc/rancher/k3s
cat >/etc/rancher/k3s/config.yaml <<'YAML'
server: https://$vip:6443
token: $(cat "$scratch/token")
node-name: $1
node-ip:
- $(address "$1")
$(cat "$folder/settings")
YAML
systemctl start k3s-agent
END
}

# --- the load balancers

stage_balancer() {
  on "$1" 'sh -s' <<'END'
set -e
export DEBIAN_FRONTEND=noninteractive
{ apt-get -qy update && apt-get -qy --no-install-recommends install haproxy keepalived; } </dev/null >/dev/null
END
}

# HAProxy asks /readyz, which wants a client certificate: the cluster signs one that may do nothing else.
sign_check_certificate() {
  on s1 'sh -s' <<'END'
set -e
key=$(openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256)
request=$(printf '%s\n' "$key" | openssl req -new -key /dev/stdin -subj /CN=lb-check | base64 -w0)
k3s kubectl create -f - >/dev/null <<YAML
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: lb-check}
spec: {request: $request, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}
YAML
k3s kubectl certificate approve lb-check >/dev/null
until signed=$(k3s kubectl get csr lb-check -o 'jsonpath={.status.certificate}') && [ -n "$signed" ]; do sleep 0.3; done
printf '%s' "$signed" | base64 -d
printf '%s\n' "$key"
END
}

start_balancer() {
  case $1 in
    lb1) peer=$(address lb2) priority=200 ;;
    lb2) peer=$(address lb1) priority=190 ;;
  esac
  on "$1" 'sh -s' <<END
set -e
(umask 077; cat >/etc/haproxy/k3s-check.pem) <<'PEM'
$(cat "$scratch/check.pem")
PEM
cat >/etc/haproxy/k3s-server-ca.pem <<'PEM'
$(cat "$scratch/server-ca.pem")
PEM
cat >/etc/haproxy/k3s-sessions.lua <<'LUA'
$(cat "$roles/haproxy_sessions.lua")
LUA
cat >/etc/haproxy/haproxy.cfg <<'CFG'
global
    log /dev/log local0
    user haproxy
    group haproxy
    stats socket /run/haproxy/admin.sock mode 600 level admin
    .if version_atleast(2.6)
    fd-hard-limit 100000
    .endif
    hard-stop-after 1h
    .if version_atleast(3.1-dev0)
    tune.lua.bool-sample-conversion normal
    .endif
    setenv K3S_SETTLED 6
    lua-load /etc/haproxy/k3s-sessions.lua

defaults
    mode tcp
    log global
    option dontlognull
    option redispatch 1
    retries 10
    option clitcpka
    clitcpka-idle 1m
    clitcpka-intvl 10s
    clitcpka-cnt 3
    option srvtcpka
    srvtcpka-idle 10s
    srvtcpka-intvl 5s
    srvtcpka-cnt 3
    timeout connect 300ms
    timeout client 1m
    timeout server 1m
    timeout client-fin 30s
    timeout server-fin 30s
    timeout tunnel 1h
    timeout check 3000ms

frontend k3s
    option tcplog
    bind *:6443
    use_backend all if { nbsrv(servers) lt 1 }
    default_backend servers

backend servers
    balance leastconn
    default-server slowstart 10s
$(for server in $servers; do echo "    server $server $(address "$server"):6443 track checks/$server"; done)

backend checks
    timeout connect 1000ms
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify required ca-file /etc/haproxy/k3s-server-ca.pem \
crt /etc/haproxy/k3s-check.pem verifyhost kubernetes inter 1000ms fastinter 500ms downinter 1000ms fall 3 rise 1
$(for server in $servers; do echo "    server $server $(address "$server"):6443"; done)

backend all
    balance roundrobin
$(for server in $servers; do echo "    server $server $(address "$server"):6443"; done)

frontend stats
    mode http
    bind 127.0.0.1:8405
    no log
    timeout client 10s
    timeout http-request 5s
    http-request return status 200 if { path /alive }
    http-request return status 200 if { path /servers } { nbsrv(checks) gt 0 }
    http-request return status 503 if { path /servers }
    http-request use-service prometheus-exporter if { path /metrics }
    stats enable
    stats uri /
CFG
cat >/etc/keepalived/check <<'CHECK'
$(cat "$roles/keepalived_check.bash")
CHECK
cat >/etc/keepalived/k3s-notify <<'NOTIFY'
$(cat "$roles/keepalived_notify.sh")
NOTIFY
chmod 755 /etc/keepalived/check /etc/keepalived/k3s-notify
cat >/etc/keepalived/keepalived.conf <<'CONF'
global_defs {
    router_id $1
    vrrp_version 3
    enable_script_security
    script_user root
    vrrp_priority -20
    vrrp_no_swap
    vrrp_garp_master_delay 1
    vrrp_garp_master_repeat 3
    vrrp_garp_master_refresh 1
}

vrrp_script haproxy {
    script "/etc/keepalived/check 8405"
    interval 1
    timeout 5
    fall 1
    rise 2
}

vrrp_script servers {
    script "/etc/keepalived/check 8405 servers"
    interval 1
    timeout 5
    fall 2
    rise 2
    weight -50
}

vrrp_instance k3s {
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority $priority
    advert_int 0.12
    unicast_src_ip $(address "$1")
    unicast_peer {
        $peer
    }
    virtual_ipaddress {
        $vip/32 dev eth0
    }
    track_script {
        haproxy
        servers
    }
    notify "/etc/keepalived/k3s-notify $vip"
}
CONF
systemctl enable -q haproxy keepalived
systemctl restart haproxy keepalived
END
}

# --- a newer K3s, one node after the other; a server is out of the rotation of both load balancers meanwhile

dump_datastore() {
  on db1 'sh -s' <<'END'
set -e
umask 077
mariadb-dump --single-transaction --hex-blob "$(mariadb -N -e "SHOW DATABASES LIKE 'k3s%'")" | gzip >/root/k3s.sql.gz
END
}

stage_newer() {
  put "$folder/next/k3s" "$1" /usr/local/bin/k3s.new 755
}

# haproxy HOST COMMAND SERVER: take a server out and wait for its sessions, or bring it back and wait until it is up
haproxy() {
  on "$1" 'sh -s' <<END
ask() {
  perl -e 'use IO::Socket::UNIX; print {\$s = IO::Socket::UNIX->new(Peer => shift)} "@ARGV\n"; print while <\$s>' \
    /run/haproxy/admin.sock "\$@"
}
entries() { ask show stat | awk -F, '\$2 == "$3" { print \$1, \$5, \$18 }'; }
for backend in servers checks all; do ask set server \$backend/$3 state $2 >/dev/null; done
tries=0
case $2 in
  drain)
    while entries | awk '{ n += \$2 } END { exit !n }' && [ \$tries -lt 25 ]; do
      sleep 0.2
      tries=\$((tries + 1))
    done
    ;;
  ready) while entries | grep -qvE ' (UP|no)'; do sleep 0.2; done ;;
esac
END
}

take_out() {
  haproxy "$1" drain "$moving"
}

bring_back() {
  haproxy "$1" ready "$moving"
}

# What says that the node of a host is Ready again, as its kubelet has said since the start, with the new version.
ready_again() {
  cat <<END
until [ "\$said" = "True $version" ] && [ "\$(date -d "\$posted" +%s)" -ge "\$start" ]; do
  sleep 0.3
  told=\$(k3s kubectl $2 get node $1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].lastHeartbeatTime} \
{.status.conditions[?(@.type=="Ready")].status} {.status.nodeInfo.kubeletVersion}' 2>/dev/null </dev/null)
  posted=\${told%% *} said=\${told#* }
done
END
}

restart_server() {
  on "$1" 'sh -s' <<END
mv /usr/local/bin/k3s.new /usr/local/bin/k3s
start=\$(date +%s)
systemctl restart k3s || exit 1
until [ "\$(k3s kubectl get --raw /readyz 2>/dev/null </dev/null)" = ok ]; do sleep 0.3; done
$(ready_again "$1" '')
END
}

restart_agent() {
  on "$1" 'sh -s' <<END
mv /usr/local/bin/k3s.new /usr/local/bin/k3s
start=\$(date +%s)
systemctl restart k3s-agent || exit 1
$(ready_again "$1" "--kubeconfig=/var/lib/rancher/k3s/agent/kubelet.kubeconfig --server=https://$vip:6443")
END
}

# A server that has lost its lease on a busy machine ends, and answers again a little later.
through_s1() {
  until on s1 "k3s kubectl $*" </dev/null >/dev/null; do sleep 1; done
}

upgrade() {
  shared="-o ControlMaster=auto -o ControlPersist=600 -o ControlPath=$folder/%n.ssh"
  trap 'close_connections' EXIT
  trap 'exit 143' HUP INT TERM
  version=$(cat "$folder/version")
  each open_connection $everybody
  dump_datastore &
  dump=$!
  each stage_newer $servers $agents
  joined $dump
  progress 'the newer K3s is on all nodes, the datastore is dumped'
  for moving in $servers; do
    each take_out $balancers
    restart_server "$moving"
    each bring_back $balancers
    progress "$moving is ready"
  done
  for agent in $agents; do
    through_s1 drain "$agent" --ignore-daemonsets --delete-emptydir-data
    restart_agent "$agent"
    through_s1 uncordon "$agent"
    progress "$agent is ready"
  done
  on s1 'sh -s' <<END
until [ "\$(k3s kubectl --server=https://$vip:6443 get nodes --no-headers 2>/dev/null | grep -c " Ready .*$version")" = 5 ]; do
  sleep 0.3
done
END
  progress 'five nodes are Ready through the VIP'
}

# --- actions

# Print progress; the benchmark shows it with the time.
progress() {
  echo "by hand: $*"
}

# stage HOST: bring it what it needs; nothing of K3s starts
stage() {
  case $1 in
    db*) stage_datastore ;;
    s*) stage_server "$1" ;;
    a*) install_k3s "$1" agent ;;
    lb*) stage_balancer "$1" ;;
  esac
}

deploy() {
  shared="-o ControlMaster=auto -o ControlPersist=60 -o ControlPath=$folder/%n.ssh"
  scratch=$(mktemp -d)
  trap 'close_connections; rm -rf "$scratch"' EXIT
  trap 'exit 143' HUP INT TERM
  make_keys
  each open_connection $everybody
  progress connected

  stage db1 &
  datastore=$!
  stage s1 &
  first=$!
  each stage s2 s3 $agents $balancers &
  the_rest=$!
  joined $datastore $first
  progress 'the datastore and the first server are staged'

  start_server s1
  progress 'the first server is ready'

  joined $the_rest
  progress 'everything else is staged'
  each start_server s2 s3 &
  other_servers=$!
  sign_check_certificate >"$scratch/check.pem"
  on s1 'cat /var/lib/rancher/k3s/server/tls/server-ca.crt' </dev/null >"$scratch/server-ca.pem"
  on s1 'cat /var/lib/rancher/k3s/server/token' </dev/null >"$scratch/token"
  progress 'the check certificate is signed'

  each start_balancer $balancers
  progress 'the load balancers run'
  each start_agent $agents
  progress 'the agents have joined'
  joined $other_servers
  progress 'the other servers are ready'

  on s1 'sh -s' <<END
until [ "\$(k3s kubectl --server=https://$vip:6443 get nodes --no-headers 2>/dev/null | grep -c ' Ready')" = 5 ]; do
  sleep 0.3
done
END
  (umask 077; on s1 'cat /etc/rancher/k3s/k3s.yaml' </dev/null | sed "s/127.0.0.1/$vip/" >"$folder/by-hand.kubeconfig")
  progress 'five nodes are Ready through the VIP'
}

gather_from() {
  on "$1" 'sh -s' <"$folder/scripts/$1" >"$folder/scripts/$1.out"
}

push_to() {
  on "$1" "sh -c 'cat >/var/tmp/bench'" <"$folder/file"
}

case $work in
  deploy) deploy ;;
  upgrade) upgrade ;;
  gather) each gather_from $everybody ;;
  push) each push_to $servers $agents ;;
esac
