#!/bin/bash
# Managed by nornir-k3s. keepalived gives the VIP away when HAProxy does not answer a request. The connection is held
# until just before the next check: where HAProxy ends meanwhile, it is known at once.
port=$1
if [ -z "$port" ]; then # called by a keepalived that has not read its new configuration
  read -r pid </run/haproxy.pid && kill -0 "$pid"
  exit
fi

answers() {
  exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /alive HTTP/1.1\r\nHost: localhost\r\n\r\n' >&3 &&
    read -r -t 3 _ status _ <&3 && [ "$status" = 200 ]
}

{
  answers || exit 1
  while read -r -t 0.7 _ <&3; do :; done
  # More than 128: the time has passed. Otherwise HAProxy has closed it: when it reloads, another answers already.
  [ $? -gt 128 ] || answers
} 2>/dev/null
