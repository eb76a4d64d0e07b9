#!/bin/bash
# Managed by nornir-k3s. keepalived gives the VIP away when HAProxy does not answer a request. The connection is held
# until just before the next check: where HAProxy ends meanwhile, it is known at once. With `servers` it asks whether
# HAProxy sees a server: a load balancer that was cut off sees none, and gives way when it is back.
port=$1 path=/${2:-alive}
if [ -z "$port" ]; then # called by a keepalived that has not read its new configuration
  read -r pid </run/haproxy.pid && kill -0 "$pid"
  exit
fi

asks() {
  exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n' "$path" >&3 &&
    read -r -t 3 _ status _ <&3 && [ "$status" = 200 ]
}
answers() {
  asks && return
  # HAProxy may have its new port already while keepalived has not.
  new=$(sed -n '/^frontend stats/,$ s/^ *bind .*:\([0-9]*\)$/\1/p' /etc/haproxy/haproxy.cfg | head -n 1)
  [ -n "$new" ] && [ "$new" != "$port" ] && port=$new && asks
}

{
  answers || exit 1
  [ "$path" = /alive ] || exit 0
  while read -r -t 0.7 _ <&3; do :; done
  # More than 128: the time has passed. Otherwise HAProxy has closed it: when it reloads, another answers already.
  [ $? -gt 128 ] || answers
} 2>/dev/null
