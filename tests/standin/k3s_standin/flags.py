"""The flags of `k3s server` and `k3s agent`, and the environment variables that set them (pkg/cli/cmds)."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NODE = _words("""
    config debug v vmodule log alsologtostderr bind-address data-dir token token-file server
    node-name with-node-id node-label node-taint node-ip node-external-ip node-internal-dns node-external-dns
    docker image-credential-provider-bin-dir image-credential-provider-config container-runtime-endpoint
    image-service-endpoint default-runtime disable-default-registry-endpoint nonroot-devices pause-image snapshotter
    private-registry airgap-extra-registry resolv-conf flannel-iface flannel-conf flannel-cni-conf kubelet-arg
    kube-proxy-arg protect-kernel-defaults enable-pprof rootless prefer-bundled-bin selinux lb-server-port
    vpn-auth vpn-auth-file
""")
AGENT = NODE | {"disable-apiserver-lb"}
SERVER = NODE | _words("""
    helm-controller-arg write-kubeconfig-name
    https-listen-port supervisor-port apiserver-port apiserver-bind-address advertise-address advertise-port
    tls-san tls-san-security cluster-cidr service-cidr service-node-port-range cluster-dns cluster-domain
    flannel-backend flannel-ipv6-masq flannel-external-ip egress-selector-mode servicelb-namespace
    write-kubeconfig write-kubeconfig-mode write-kubeconfig-group helm-job-image agent-token agent-token-file
    cluster-init cluster-reset cluster-reset-restore-path kube-apiserver-arg etcd-arg kube-controller-manager-arg
    kube-scheduler-arg kube-cloud-controller-manager-arg datastore-endpoint datastore-cafile datastore-certfile
    datastore-keyfile etcd-expose-metrics etcd-disable-snapshots etcd-snapshot-name etcd-snapshot-schedule-cron
    etcd-snapshot-retention etcd-snapshot-dir etcd-snapshot-compress etcd-s3 etcd-s3-endpoint etcd-s3-endpoint-ca
    etcd-s3-skip-ssl-verify etcd-s3-access-key etcd-s3-secret-key etcd-s3-session-token etcd-s3-bucket
    etcd-s3-bucket-lookup-type etcd-s3-region etcd-s3-folder etcd-s3-proxy etcd-s3-config-secret etcd-s3-insecure
    etcd-s3-timeout etcd-s3-retention default-local-storage-path disable disable-scheduler disable-cloud-controller
    disable-kube-proxy disable-network-policy disable-helm-controller disable-agent disable-apiserver
    disable-controller-manager disable-etcd embedded-registry supervisor-metrics secrets-encryption
    secrets-encryption-provider system-default-registry kine-tls
""")
LISTS = _words("""
    tls-san node-label node-taint kubelet-arg kube-proxy-arg kube-apiserver-arg etcd-arg kube-controller-manager-arg
    kube-scheduler-arg kube-cloud-controller-manager-arg helm-controller-arg disable node-ip node-external-ip
    node-internal-dns
    node-external-dns cluster-cidr service-cidr cluster-dns airgap-extra-registry
""")
BOOLS = _words("""
    with-node-id docker disable-default-registry-endpoint nonroot-devices protect-kernel-defaults enable-pprof
    rootless prefer-bundled-bin selinux debug alsologtostderr cluster-init cluster-reset flannel-ipv6-masq
    flannel-external-ip tls-san-security disable-scheduler disable-cloud-controller disable-kube-proxy
    disable-network-policy disable-helm-controller disable-agent disable-apiserver disable-controller-manager
    disable-etcd embedded-registry supervisor-metrics secrets-encryption kine-tls disable-apiserver-lb
    etcd-expose-metrics etcd-disable-snapshots etcd-snapshot-compress etcd-s3 etcd-s3-skip-ssl-verify
    etcd-s3-insecure
""")
NUMBERS = _words("""
    v https-listen-port supervisor-port apiserver-port advertise-port lb-server-port etcd-snapshot-retention
    etcd-s3-retention
""")
ALIASES = {
    **{"t": "token", "s": "server", "d": "data-dir", "c": "config", "l": "log", "o": "write-kubeconfig"},
    "kube-controller-arg": "kube-controller-manager-arg",
    "kube-cloud-controller-arg": "kube-cloud-controller-manager-arg",
}
# Only these take several values in one, separated by commas: the CLI's own splitting is off.
SPLIT = _words("""
    tls-san disable node-ip node-external-ip node-internal-dns node-external-dns cluster-cidr service-cidr cluster-dns
""")
SECRET = _words("token agent-token datastore-endpoint vpn-auth etcd-s3-access-key etcd-s3-secret-key")
ENVIRONMENT = {
    "K3S_TOKEN": "token",
    "K3S_TOKEN_FILE": "token-file",
    "K3S_URL": "server",
    "K3S_AGENT_TOKEN": "agent-token",
    "K3S_AGENT_TOKEN_FILE": "agent-token-file",
    "K3S_DATASTORE_ENDPOINT": "datastore-endpoint",
    "K3S_DATASTORE_CAFILE": "datastore-cafile",
    "K3S_DATASTORE_CERTFILE": "datastore-certfile",
    "K3S_DATASTORE_KEYFILE": "datastore-keyfile",
    "K3S_DATA_DIR": "data-dir",
    "K3S_NODE_NAME": "node-name",
    "K3S_KUBECONFIG_OUTPUT": "write-kubeconfig",
    "K3S_KUBECONFIG_MODE": "write-kubeconfig-mode",
    "K3S_KUBECONFIG_GROUP": "write-kubeconfig-group",
    "K3S_KUBECONFIG_NAME": "write-kubeconfig-name",
    "K3S_CLUSTER_INIT": "cluster-init",
    "K3S_CLUSTER_RESET": "cluster-reset",
    "K3S_SELINUX": "selinux",
    "K3S_LB_SERVER_PORT": "lb-server-port",
    "K3S_SUPERVISOR_PORT": "supervisor-port",
    "K3S_APISERVER_PORT": "apiserver-port",
    "K3S_APISERVER_BIND_ADDRESS": "apiserver-bind-address",
    "K3S_RESOLV_CONF": "resolv-conf",
    "K3S_SYSTEM_DEFAULT_REGISTRY": "system-default-registry",
    "K3S_DEBUG": "debug",
    "K3S_VPN_AUTH": "vpn-auth",
    "K3S_VPN_AUTH_FILE": "vpn-auth-file",
}
