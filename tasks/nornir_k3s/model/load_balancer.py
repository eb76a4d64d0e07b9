"""The settings of the load balancers."""

from __future__ import annotations

from ipaddress import IPv4Address

from pydantic import Field, IPvAnyAddress

from nornir_k3s.model.value_types import Strict


class Stats(Strict):
    """Where each HAProxy tells of itself over HTTP: a page at `/`, metrics for Prometheus at `/metrics`."""

    address: IPvAnyAddress = Field(IPv4Address("127.0.0.1"), description="of every load balancer; 0.0.0.0 is all")
    port: int = Field(8405, ge=1, le=65535)


class Timeouts(Strict):
    """HAProxy's timeouts in seconds, instead of those that follow from the round trips to the servers."""

    connect: float | None = Field(None, ge=0.05, le=60, description="until a connection is tried at another server")
    check: float | None = Field(None, ge=0.5, le=60, description="until a server must have answered a health check")
    interval: float | None = Field(
        None, ge=0.2, le=60, description="between two health checks; three that fail in a row take a server out"
    )


class LoadBalancer(Strict):
    """HAProxy and keepalived on the hosts of group lb."""

    virtual_router_id: int = Field(51, ge=1, le=255, description="unique among the VRRP groups of the network")
    vips: tuple[IPvAnyAddress, ...] = Field(
        (), strict=False, description="more VIPs, IPv4 or IPv6, which move together with `registration.address`"
    )
    prefix: int | None = Field(
        None,
        ge=8,
        le=128,
        description="prefix length of the VIP; default: a single address (32, or 128 for IPv6)",
    )
    advert_int: float = Field(
        0.12,
        ge=0.1,
        le=40,
        description="seconds between two advertisements of the VIP's holder; another takes over after 3 to 4 of them",
    )
    preempt_delay: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="seconds after which the first load balancer takes the VIP back; default: it stays where it is",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts)
    stats: Stats = Field(default_factory=Stats)
