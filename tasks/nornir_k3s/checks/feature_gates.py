"""Checks of feature gates: a component does not start with one that it does not know, or cannot turn off.

Sources: kubernetes `test/compatibility_lifecycle/reference` (`versioned_feature_list.yaml` of 1.34 and 1.36: what is
locked since when, and what the later one lacks); what 1.35 lacks already: its changelog, and the pull requests 132157,
133684, 133686, 133687, 133720, 133742, 134552 and 134994; `component-base/featuregate` (`Set`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster, Member, Setting
from nornir_k3s.model.finding import Finding, problem

_APPS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
ARGUMENTS = tuple(f"{name}-arg" for name in _APPS)
# Gone at the latest in this version.
REMOVED = {
    "1.35": (
        *("AllowServiceLBStatusOnNonLB", "ComponentSLIs", "CronJobsScheduledAnnotation", "LoadBalancerIPMode"),
        *("PodIndexLabel", "SizeMemoryBackedVolumes", "StatefulSetAutoDeletePVC", "StrictCostEnforcementForVAP"),
        *("StrictCostEnforcementForWebhooks", "UserNamespacesPodSecurityStandards"),
    ),
    "1.36": (
        *(
            "CSIMigrationPortworx",
            "DevicePluginCDIDevices",
            "InTreePluginPortworxUnregister",
            "LegacySidecarContainers",
        ),
        *("MemoryManager", "ServiceTrafficDistribution", "StructuredAuthorizationConfiguration", "TopologyAwareHints"),
        "WatchFromStorageWithoutResourceVersion",
    ),
}
# True, and locked to that since this version.
ON = {
    "1.30": ("PodSchedulingReadiness",),
    "1.31": ("DevicePluginCDIDevices", "LogarithmicScaleDown"),
    "1.32": (
        *("ComponentSLIs", "CronJobsScheduledAnnotation", "CustomResourceFieldSelectors", "LoadBalancerIPMode"),
        *("MemoryManager", "PodIndexLabel", "RetryGenerateName", "ServiceAccountTokenJTI"),
        *("ServiceAccountTokenNodeBindingValidation", "ServiceAccountTokenPodNodeInfo", "SizeMemoryBackedVolumes"),
        *("StatefulSetAutoDeletePVC", "StrictCostEnforcementForVAP", "StrictCostEnforcementForWebhooks"),
        *("StructuredAuthorizationConfiguration", "TopologyManagerPolicyOptions"),
    ),
    "1.33": (
        *("AnyVolumeDataSource", "BtreeWatchCache", "CPUManagerPolicyOptions", "CRDValidationRatcheting"),
        *("HonorPVReclaimPolicy", "JobBackoffLimitPerIndex", "JobSuccessPolicy", "MatchLabelKeysInPodAffinity"),
        *("NFTablesProxyMode", "NodeInclusionPolicyInPodTopologySpread", "RecursiveReadOnlyMounts"),
        *("ServiceAccountTokenNodeBinding", "ServiceTrafficDistribution", "SidecarContainers", "TopologyAwareHints"),
    ),
    "1.34": (
        *("APIServerTracing", "AnonymousAuthConfigurableEndpoints", "AuthorizeNodeWithSelectors"),
        *("AuthorizeWithSelectors", "ConsistentListFromCache", "JobPodReplacementPolicy", "KubeletCgroupDriverFromCRI"),
        *("KubeletTracing", "MultiCIDRServiceAllocator", "NodeSwap", "OrderedNamespaceDeletion"),
        *("PodLifecycleSleepAction", "PodLifecycleSleepActionAllowZero", "RecoverVolumeExpansionFailure"),
        *("RelaxedDNSSearchValidation", "RelaxedEnvironmentVariableValidation", "ResilientWatchCacheInitialization"),
        *("SchedulerQueueingHints", "SeparateTaintEvictionController", "StreamingCollectionEncodingToJSON"),
        *("StreamingCollectionEncodingToProtobuf", "StructuredAuthenticationConfiguration", "WinDSR", "WinOverlay"),
    ),
    "1.35": (
        *("AggregatedDiscoveryRemoveBetaType", "DisableAllocatorDualWrite", "DynamicResourceAllocation"),
        *("ExecProbeTimeout", "ImageMaximumGCAge", "InPlacePodVerticalScaling", "JobManagedBy"),
        *("PodObservedGenerationTracking", "PreferSameTrafficDistribution", "SupplementalGroupsPolicy"),
        "SystemdWatchdog",
    ),
    "1.36": (
        *("CSIServiceAccountTokenSecrets", "DRAAdminAccess", "DeclarativeValidation", "DisableNodeKubeProxyVersion"),
        *("ExternalServiceAccountTokenSigner", "ImageVolume", "KubeletFineGrainedAuthz", "KubeletPSI"),
        *("KubeletPodResourcesDynamicResources", "KubeletPodResourcesGet", "MutableCSINodeAllocatableCount"),
        *("NodeLogQuery", "ProcMountType", "SELinuxChangePolicy", "SELinuxMountReadWriteOncePod"),
        *("UserNamespacesSupport", "VolumeAttributesClass"),
    ),
}
# False, and locked to that.
OFF = {
    "1.32": ("AllowServiceLBStatusOnNonLB",),
    "1.35": ("AllowOverwriteTerminationGracePeriodSeconds",),
    "1.36": ("GitRepoVolumeDriver", "SeparateCacheWatchRPC"),
}
# What strconv.ParseBool takes, in lower case.
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


def check(cluster: Cluster, member: Member) -> Iterator[Finding]:
    """Yield the feature gates of a host that its components refuse."""
    settings = cluster.settings_of(member)
    removed, on, off = (_names(cluster, table) for table in (REMOVED, ON, OFF))
    for key in ARGUMENTS:
        for name, value in _gates(settings.get(key, [])):
            if name in removed:
                found = f"{key} has the feature gate {name}, which Kubernetes {removed[name]} has removed"
            elif name in on and value in _FALSE:
                found = f"{key} turns {name} off, which is locked on since Kubernetes {on[name]}"
            elif name in off and value in _TRUE:
                found = f"{key} turns {name} on, which is locked off since Kubernetes {off[name]}"
            else:
                continue
            expected = f"feature gates that K3s {cluster.version} takes: it would not start"
            yield problem(member.name, "feature-gate", found, expected, f"take {name} out of `{key}`")


def _gates(given: Setting) -> Iterator[tuple[str, str]]:
    for item in given if isinstance(given, list) else [given]:
        argument, _, gates = str(item).removeprefix("--").partition("=")
        if argument == "feature-gates":
            for gate in gates.split(","):
                name, _, value = gate.strip().partition("=")
                yield name, value.strip().lower()


def _names(cluster: Cluster, table: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the gates of a table that count for the version of this cluster, and since which one they do."""
    reached = {since: names for since, names in table.items() if k3s.reached(cluster.version, f"{since}.0")}
    return {name: since for since, names in reached.items() for name in names}
