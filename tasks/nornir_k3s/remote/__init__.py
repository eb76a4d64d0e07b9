"""The only code that talks to a host."""

from nornir_k3s.remote import later

later.import_paramiko()
