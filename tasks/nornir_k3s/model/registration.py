"""The fixed registration address in the inventory: what agents and people use, and who leads it to the servers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, IPvAnyAddress, model_validator

from nornir_k3s.model.address import is_address, more_than_a_host, not_of_a_host
from nornir_k3s.model.value_types import Strict

Way = Literal["vip", "external", "dns"]
_DNS_NAME = r"^[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?$"


def _vip(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    if not isinstance(value, str) or is_address(value):
        return value
    if wrong := more_than_a_host(value, "address", port="port: {}", prefix="lb: {{prefix: {}}}"):
        raise ValueError(wrong)
    raise ValueError(f"{value!r} is not an IP address: write the VIP here, and a DNS name of it as `name`")


def _dns_name(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    if isinstance(value, str) and (wrong := more_than_a_host(value, "name", port="port: {}")):
        raise ValueError(wrong)
    if isinstance(value, str) and is_address(value):
        raise ValueError(f"{value!r} is an IP address: the VIP is `address`, and a DNS name of it is `name`")
    if isinstance(value, str) and (value.lower() == "localhost" or value.lower().endswith(".localhost")):
        raise ValueError(f"{value!r} is each host itself: write a DNS name of the VIP")
    labels = value.split(".") if isinstance(value, str) else []
    if isinstance(value, str) and not (re.fullmatch(_DNS_NAME, value) and all(0 < len(one) < 64 for one in labels)):
        raise ValueError(f"{value!r} is not a DNS name: letters, digits, - and ., at most 63 between two dots")
    return value


class Registration(Strict):
    """The fixed registration address: what agents and people use (docs: datastore/ha.md)."""

    way: Way = Field(
        "vip",
        description="vip: HAProxy and keepalived of group lb; external: a load balancer that someone else runs; dns: a"
        " name of the servers, or an elastic IP",
    )
    address: Annotated[IPvAnyAddress | None, BeforeValidator(_vip)] = Field(
        None, description="the VIP; of the other ways the load balancer's address, or the elastic IP"
    )
    name: Annotated[str | None, BeforeValidator(_dns_name)] = Field(
        None, pattern=_DNS_NAME, description="a DNS name of it, used if given"
    )
    port: int = Field(6443, ge=1, le=65535, description="default where the load balancers run K3s: 7443")
    managed: bool = Field(True, description="false: the same as `way: external`")

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, value: Any) -> Any:  # noqa: ANN401 - what stands in the file
        if not isinstance(value, dict) or not isinstance(value.get("managed", True), bool):
            return value
        way, managed = value.get("way"), value.get("managed")
        if managed is False and way not in (None, "external"):
            raise ValueError(
                f"`managed: false` is the same as `way: external`, and contradicts `way: {way}`: remove it"
            )
        if managed is True and way in ("external", "dns"):
            raise ValueError(f"`managed: true` contradicts `way: {way}`: remove it")
        way = way or ("external" if managed is False else "vip")
        return {**value, "way": way, "managed": way == "vip"}

    @model_validator(mode="after")
    def _something(self) -> Registration:
        if self.way == "vip" and self.address is None:
            raise ValueError("the VIP is missing: give `address`")
        if self.way == "dns" and not self.name:
            raise ValueError("with `way: dns` the name of the servers is missing: give `name`")
        if self.address is None and not self.name:
            raise ValueError("give `address`, `name` or both")
        if self.address and (wrong := not_of_a_host(str(self.address))):
            raise ValueError(wrong)
        return self
