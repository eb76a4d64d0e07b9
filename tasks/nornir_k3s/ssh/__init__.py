"""The only code that talks to a host."""

from nornir_k3s.ssh import lazy_paramiko

lazy_paramiko.import_paramiko()
