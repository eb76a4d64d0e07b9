"""The kinds of objects the API knows, for the server and for kubectl alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Arguments:
        plural: As in paths.
        kind: As in objects.
        group: API group, empty for the core.
        version: Version of the group.
        namespaced: Whether objects are in namespaces.
        key: Prefix in the datastore.
        short: Other names that kubectl takes.
    """

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    key: str = ""
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As in objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full(self) -> str:
        """As in messages: `certificatesigningrequests.certificates.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def prefix(self) -> str:
        """All keys of this kind begin with it."""
        return self.key or f"/registry/{self.plural}/"

    @property
    def singular(self) -> str:
        """As in kubectl's words."""
        return self.kind.lower()

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of an object or a list."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{base}{place}/{self.plural}" + (f"/{name}" if name else "")


_RBAC, _APPS, _NET = "rbac.authorization.k8s.io", "apps", "networking.k8s.io"
KINDS = {
    kind.plural: kind
    for kind in (
        Kind("nodes", "Node", namespaced=False, key="/registry/minions/", short=("no",)),
        Kind("namespaces", "Namespace", namespaced=False, short=("ns",)),
        Kind("pods", "Pod", short=("po",)),
        Kind("secrets", "Secret"),
        Kind("configmaps", "ConfigMap", short=("cm",)),
        Kind("services", "Service", key="/registry/services/specs/", short=("svc",)),
        Kind("endpoints", "Endpoints", key="/registry/services/endpoints/", short=("ep",)),
        Kind("serviceaccounts", "ServiceAccount", short=("sa",)),
        Kind("events", "Event", short=("ev",)),
        Kind("persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",)),
        Kind("persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
        Kind("deployments", "Deployment", _APPS, short=("deploy",)),
        Kind("daemonsets", "DaemonSet", _APPS, short=("ds",)),
        Kind("statefulsets", "StatefulSet", _APPS, short=("sts",)),
        Kind("replicasets", "ReplicaSet", _APPS, short=("rs",)),
        Kind("jobs", "Job", "batch"),
        Kind("cronjobs", "CronJob", "batch", short=("cj",)),
        Kind("leases", "Lease", "coordination.k8s.io"),
        Kind("clusterroles", "ClusterRole", _RBAC, namespaced=False),
        Kind("clusterrolebindings", "ClusterRoleBinding", _RBAC, namespaced=False),
        Kind("roles", "Role", _RBAC),
        Kind("rolebindings", "RoleBinding", _RBAC),
        Kind("ingresses", "Ingress", _NET, short=("ing",)),
        Kind("networkpolicies", "NetworkPolicy", _NET, short=("netpol",)),
        Kind("servicecidrs", "ServiceCIDR", _NET, namespaced=False),
        Kind("storageclasses", "StorageClass", "storage.k8s.io", namespaced=False, short=("sc",)),
        Kind("poddisruptionbudgets", "PodDisruptionBudget", "policy", short=("pdb",)),
        Kind(
            "customresourcedefinitions",
            "CustomResourceDefinition",
            "apiextensions.k8s.io",
            namespaced=False,
            key="/registry/apiextensions.k8s.io/customresourcedefinitions/",
            short=("crd", "crds"),
        ),
        Kind(
            "certificatesigningrequests",
            "CertificateSigningRequest",
            "certificates.k8s.io",
            namespaced=False,
            short=("csr",),
        ),
    )
}


def find(word: str) -> Kind | None:
    """Return the kind that a word means on kubectl's command line."""
    word = word.lower()
    for kind in KINDS.values():
        if word in (kind.plural, kind.singular, kind.full, f"{kind.singular}.{kind.group}", *kind.short):
            return kind
    return None
