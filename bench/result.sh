#!/bin/sh
# result.sh HOST: print what a deployment has made of a host of the lab, so that both sides can be compared.
case $1 in
  db*)
    cat /etc/mysql/mariadb.conf.d/90-*
    systemctl is-active mariadb
    stat -c '%a %U %G' /etc/mysql/*k3s-*.pem
    mariadb -e "SHOW DATABASES; SELECT User, Host, ssl_type FROM mysql.user; SELECT * FROM mysql.db WHERE Db = 'k3s'"
    ;;
  s*)
    cat /etc/rancher/k3s/config.yaml /etc/systemd/system/k3s.service
    sha256sum </usr/local/bin/k3s
    stat -c '%a %U %n' /etc/rancher/k3s/*.pem
    ;;
  a*)
    cat /etc/rancher/k3s/config.yaml /etc/systemd/system/k3s-agent.service
    sha256sum </usr/local/bin/k3s
    ;;
  lb*)
    cat /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf
    systemctl is-active haproxy keepalived
    stat -c '%a %U' /etc/haproxy/k3s-check.pem
    systemctl is-enabled haproxy keepalived
    ;;
esac
