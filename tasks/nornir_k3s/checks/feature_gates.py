"""Checks of feature gates: a component does not start with one that it does not know, or cannot turn off.

Sources: kubernetes `test/compatibility_lifecycle/reference` (`versioned_feature_list.yaml` of 1.34, `feature_list.md`
of 1.36: what is locked since when, and what the later one lacks); `component-base/featuregate` (`Set`).
"""

from __future__ import annotations

from collections.abc import Iterator

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster, Member, Setting
from nornir_k3s.model.finding import Finding, problem

_APPS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
ARGUMENTS = tuple(f"{name}-arg" for name in _APPS)
# Gone at the latest in this version.
REMOVED = {
    "1.36": (
        *("AllowServiceLBStatusOnNonLB", "ComponentSLIs", "CronJobsScheduledAnnotation", "CSIMigrationPortworx"),
        *("DevicePluginCDIDevices", "InTreePluginPortworxUnregister", "LegacySidecarContainers", "LoadBalancerIPMode"),
        *("MemoryManager", "PodIndexLabel", "ServiceTrafficDistribution", "SizeMemoryBackedVolumes"),
        *("StatefulSetAutoDeletePVC", "StrictCostEnforcementForVAP", "StrictCostEnforcementForWebhooks"),
        *("StructuredAuthorizationConfiguration", "TopologyAwareHints", "UserNamespacesPodSecurityStandards"),
        "WatchFromStorageWithoutResourceVersion",
    ),
}
# True, and locked to that since this version.
LOCKED = {
    "1.30": ("PodSchedulingReadiness",),
    "1.31": ("LogarithmicScaleDown",),
    "1.32": (
        *(
            "CustomResourceFieldSelectors",
            "RetryGenerateName",
            "ServiceAccountTokenJTI",
            "ServiceAccountTokenPodNodeInfo",
        ),
        *("ServiceAccountTokenNodeBindingValidation", "TopologyManagerPolicyOptions"),
    ),
    "1.33": (
        *("AnyVolumeDataSource", "BtreeWatchCache", "CPUManagerPolicyOptions", "CRDValidationRatcheting"),
        *("HonorPVReclaimPolicy", "JobBackoffLimitPerIndex", "JobSuccessPolicy", "MatchLabelKeysInPodAffinity"),
        *("NFTablesProxyMode", "NodeInclusionPolicyInPodTopologySpread", "RecursiveReadOnlyMounts"),
        *("ServiceAccountTokenNodeBinding", "SidecarContainers"),
    ),
    "1.34": (
        *("APIServerTracing", "AnonymousAuthConfigurableEndpoints", "AuthorizeNodeWithSelectors"),
        *("AuthorizeWithSelectors", "ConsistentListFromCache", "JobPodReplacementPolicy", "KubeletCgroupDriverFromCRI"),
        *("KubeletTracing", "MultiCIDRServiceAllocator", "NodeSwap", "OrderedNamespaceDeletion"),
        *("PodLifecycleSleepAction", "PodLifecycleSleepActionAllowZero", "RecoverVolumeExpansionFailure"),
        *("RelaxedDNSSearchValidation", "RelaxedEnvironmentVariableValidation", "ResilientWatchCacheInitialization"),
        *("SchedulerQueueingHints", "SeparateTaintEvictionController", "StreamingCollectionEncodingToJSON"),
        *("StreamingCollectionEncodingToProtobuf", "StructuredAuthenticationConfiguration"),
    ),
    "1.35": (
        *("AggregatedDiscoveryRemoveBetaType", "DisableAllocatorDualWrite", "DynamicResourceAllocation"),
        *("ExecProbeTimeout", "ImageMaximumGCAge", "InPlacePodVerticalScaling", "JobManagedBy"),
        *("PodObservedGenerationTracking", "PreferSameTrafficDistribution", "SupplementalGroupsPolicy"),
        "SystemdWatchdog",
    ),
    "1.36": ("CSIServiceAccountTokenSecrets", "KubeletFineGrainedAuthz", "VolumeAttributesClass"),
}


def check(cluster: Cluster, member: Member) -> Iterator[Finding]:
    """Yield the feature gates of a host that its components refuse."""
    settings = cluster.settings_of(member)
    removed = {name: since for since, names in REMOVED.items() if _reached(cluster, since) for name in names}
    locked = {name: since for since, names in LOCKED.items() if _reached(cluster, since) for name in names}
    for key in ARGUMENTS:
        for name, value in _gates(settings.get(key, [])):
            if name in removed:
                found = f"{key} has the feature gate {name}, which Kubernetes {removed[name]} does not have"
            elif name in locked and value in ("false", "f", "0"):
                found = f"{key} turns {name} off, which is on for good since Kubernetes {locked[name]}"
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


def _reached(cluster: Cluster, minor: str) -> bool:
    return k3s.reached(cluster.version, f"{minor}.0")
