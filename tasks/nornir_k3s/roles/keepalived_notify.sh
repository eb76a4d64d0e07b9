#!/bin/sh
# Managed by nornir-k3s. keepalived calls it with: VIP INSTANCE k3s STATE PRIORITY. Read it with: journalctl -t nornir-k3s
case $4 in
  MASTER) what="the VIP $1 is here" ;;
  BACKUP) what="the VIP $1 is not here: another load balancer has it" ;;
  FAULT) what="the VIP $1 cannot be here: HAProxy does not answer, or the interface is down" ;;
  *) what="keepalived is in state $4; the VIP is $1" ;;
esac
exec logger -t nornir-k3s -p daemon.notice -- "$what"
