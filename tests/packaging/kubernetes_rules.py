"""Kubernetes' own rules for objects: the schema of each version, and the Pod Security Standard `restricted`."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import kubernetes_validate.utils as schemas
import referencing
from jsonschema.validators import Draft202012Validator

from stage import Node

# Every version that the charts support and that has schemas here, oldest first.
VERSIONS = [version for version in schemas.all_versions() if schemas.Version(version) >= schemas.Version("1.29.0")]


@functools.cache
def definitions(version: str) -> referencing.Registry[Any]:
    """The definitions that the schemas of a version refer to."""
    contents = schemas.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    return referencing.Resource.from_contents(contents) @ referencing.Registry()


@functools.cache
def validator(version: str, api_version: str, kind: str) -> Draft202012Validator:
    """Same as `kubernetes_validate.validate(…, strict=True)`, but reads each file only once."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    file = f"kubernetes-json-schema/v{version}-local-strict/{kind.lower()}-{group}.json"
    schema = schemas.schema_contents(file, version)
    return Draft202012Validator(schema, registry=referencing.Resource.from_contents(schema) @ definitions(version))


@functools.cache
def complaints(version: str, document: str) -> list[str]:
    """Errors of an object (JSON) by the schema of a Kubernetes version."""
    one = json.loads(document)
    errors = validator(version, one["apiVersion"], one["kind"]).iter_errors(one)
    return [
        f"{one['kind']}/{one['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message[:300]}"
        for error in errors
    ]


def restricted(pod: Node) -> list[str]:
    """Rules of the Pod Security Standard `restricted` that a pod breaks; empty if it is admitted."""
    own = pod.get("securityContext", {})
    found = [f"host namespaces: {name}" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume type: {volume}" for volume in pod.get("volumes", []) if not set(volume) - {"name"} <= allowed]
    found += ["sysctls"] if own.get("sysctls") else []
    for container in pod.get("initContainers", []) + pod["containers"] + pod.get("ephemeralContainers", []):
        context, name = container.get("securityContext", {}), container["name"]
        effective = {**{key: own.get(key) for key in ("runAsNonRoot", "seccompProfile", "runAsUser")}, **context}
        capabilities = context.get("capabilities", {})
        rules = {
            "privileged": context.get("privileged", False) is False,
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": effective["runAsNonRoot"] is True,
            "runAsUser": effective["runAsUser"] != 0,
            "seccompProfile": (effective["seccompProfile"] or {}).get("type") in ("RuntimeDefault", "Localhost"),
            "capabilities.drop": "ALL" in capabilities.get("drop", []),
            "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "procMount": context.get("procMount", "Default") == "Default",
            "seLinuxOptions": not {"user", "role"} & set(context.get("seLinuxOptions", {})),
            "hostPort": all(not port.get("hostPort") for port in container.get("ports", [])),
            "windowsOptions": not context.get("windowsOptions", {}).get("hostProcess"),
            "appArmorProfile": context.get("appArmorProfile", {}).get("type") != "Unconfined",
            # Not part of the profile, but promised.
            "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        }
        found += [f"{name}: {rule}" for rule, kept in rules.items() if not kept]
    return found


