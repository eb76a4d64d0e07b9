#!/bin/sh
# Makes a host of the lab look like one with RHEL 9: os-release, SELinux' tools, and a dnf and an rpm that have Debian's
# packages under the names, and with the paths and units, of RHEL. Run as root: sh -s
set -eu
ln -sf bash /bin/sh
rm -f /etc/os-release
printf '%s\n' 'ID="rocky"' 'ID_LIKE="rhel centos fedora"' 'PRETTY_NAME="Rocky Linux 9.6 (lookalike)"' >/etc/os-release
mkdir -p /etc/yum.repos.d
printf '[appstream]\nname=AppStream\nenabled=1\n' >/etc/yum.repos.d/rocky.repo

cat >/usr/local/lib/names.sh <<'END'
debian() { # name of RHEL
  case $1 in
    mariadb | mysql) echo "$1-client" ;;
    postgresql-server) echo postgresql ;;
    postgresql) echo postgresql-client-common ;;
    perl-*) echo perl-base ;;
    *) echo "$1" ;;
  esac
}
END

cat >/usr/bin/rpm <<'END'
#!/bin/sh
. /usr/local/lib/names.sh
[ "$1" = -q ] || exit 0
shift
form='' missing=0
if [ "$1" = --qf ]; then form=$2; shift 2; fi
for name; do
  version=$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}' "$(debian "$name")" 2>/dev/null | sed -n 's/^ii  *//p')
  if [ "$name" = k3s-selinux ]; then version=1.6-1.el9; fi
  if [ -z "$version" ]; then echo "package $name is not installed"; missing=1
  elif [ -n "$form" ]; then
    printf '%b' "$(printf '%s' "$form" | sed "s/%{NAME}/$name/; s/%{VERSION}-%{RELEASE}/$version/; s/%{ARCH}/x86_64/")"
  fi
done
exit $missing
END

cat >/usr/bin/dnf <<'END'
#!/bin/sh
. /usr/local/lib/names.sh
set -eu
words=''
for word; do case $word in -*) ;; *) words="$words $word" ;; esac; done
set -- $words
command=$1 wanted=''
shift
for name; do wanted="$wanted $(debian "$name")"; done
if [ "$command" = list ]; then
  echo 'Available Packages'
  for name; do echo "$name.x86_64 3:9-1.el9 appstream"; done
  exit 0
fi
# Packages of RHEL start nothing.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -qy update
apt-get -qy --no-install-recommends install $wanted
rm /usr/sbin/policy-rc.d
for name; do
  case $name in
    haproxy | keepalived) systemctl disable -q "$name" ;;
    mariadb-server)
      systemctl disable -q mariadb
      mkdir -p /etc/my.cnf.d
      printf '\n!includedir /etc/my.cnf.d/\n' >>/etc/mysql/my.cnf ;;
    postgresql-server)
      systemctl disable -q postgresql
      version=$(ls /usr/lib/postgresql)
      pg_dropcluster "$version" main
      cat >/etc/systemd/system/postgresql.service <<UNIT
[Service]
Type=notify
User=postgres
RuntimeDirectory=postgresql
ExecStart=/usr/lib/postgresql/$version/bin/postgres -D /var/lib/pgsql/data
ExecReload=/bin/kill -HUP \$MAINPID
[Install]
WantedBy=multi-user.target
UNIT
      systemctl daemon-reload ;;
  esac
done
END

cat >/usr/bin/postgresql-setup <<'END'
#!/bin/sh
set -eu
[ "$1" = --initdb ]
install -d -m 700 -o postgres -g postgres /var/lib/pgsql/data
runuser -u postgres -- /usr/lib/postgresql/*/bin/initdb -D /var/lib/pgsql/data --auth=peer
END

cat >/usr/bin/getenforce <<'END'
#!/bin/sh
echo Enforcing
END
cat >/usr/bin/getsebool <<'END'
#!/bin/sh
echo "$1 --> $(cat "/etc/boolean-$1" 2>/dev/null || echo off)"
END
cat >/usr/bin/setsebool <<'END'
#!/bin/sh
[ "$1" = -P ] && echo "$3" >"/etc/boolean-$2"
END
chmod 755 /usr/bin/rpm /usr/bin/dnf /usr/bin/postgresql-setup /usr/bin/getenforce /usr/bin/getsebool /usr/bin/setsebool
