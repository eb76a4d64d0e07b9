#!/bin/sh
# Managed by nornir-k3s. keepalived gives the VIP away when HAProxy's master is gone.
read -r pid </run/haproxy.pid && kill -0 "$pid"
