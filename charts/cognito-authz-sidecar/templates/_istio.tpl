{{/*
Istio's objects for the pods, for templates of other charts. Each takes (dict "root" $), and "values" if the dependency
has an alias. Without `istio.enabled`, they are empty.

  cognito-authz-sidecar.istio             documents, each with its `---`. They are those of deploy/istio/sidecar. If the
                                          chart computes the labels of its pods, pass them as "matchLabels"
  cognito-authz-sidecar.istioAnnotations  entries of annotations of the pod, by which Istio's container mounts the socket
*/}}

{{/* Labels of the pods. Also catches what the schema rejects, if Helm skips it. */}}
{{- define "cognito-authz-sidecar.istioLabels" -}}
{{- $selector := (include "cognito-authz-sidecar.values" . | fromYaml).istio.selector -}}
{{- $labels := .matchLabels -}}
{{- if and $labels $selector -}}
{{- fail "cognito-authz-sidecar: istio.selector and the template's matchLabels: set only one of them" -}}
{{- end -}}
{{- if $selector -}}
{{- /* The API server drops unknown fields, and an empty selector matches every pod. */ -}}
{{- if and (kindIs "map" $selector) (eq (len $selector) 1) }}{{ $labels = $selector.matchLabels }}{{ else }}{{ $labels = "wrong" }}{{ end -}}
{{- end -}}
{{- if and (empty $labels) (not $selector) -}}
{{- fail "cognito-authz-sidecar: istio.selector: name the pods that have the sidecar, for example {matchLabels: {app: shop}}; without labels, Istio's policies would apply to every pod of the namespace" -}}
{{- end -}}
{{- $right := and (kindIs "map" $labels) (not (empty $labels)) -}}
{{- if $right }}{{ range $labels }}{{ if not (kindIs "string" .) }}{{ $right = false }}{{ end }}{{ end }}{{ end -}}
{{- if not $right -}}
{{- fail "cognito-authz-sidecar: istio.selector: needs matchLabels and nothing else, for example {matchLabels: {app: shop}}" -}}
{{- end -}}
{{- toYaml $labels -}}
{{- end -}}

{{- define "cognito-authz-sidecar.istioMetadata" -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
name: {{ printf "%s-%s%s" (.root.Release.Name | trunc 40 | trimSuffix "-") $v.name (.suffix | default "") }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- $own := dict "app.kubernetes.io/instance" .root.Release.Name "app.kubernetes.io/managed-by" .root.Release.Service }}
  {{- mergeOverwrite (deepCopy ($v.istio.labels | default dict)) $own | toYaml | nindent 2 }}
{{- with $v.istio.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "cognito-authz-sidecar.istioAnnotations" -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
{{- if $v.istio.enabled -}}
# Mounts the socket's directory in Istio's container.
sidecar.istio.io/userVolumeMount: {{ dict "cognito-authz-socket" (dict "mountPath" $v.socket.directory) | toJson | quote }}
{{- end -}}
{{- end -}}

{{- define "cognito-authz-sidecar.istio" -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
{{- if $v.istio.enabled -}}
{{- $istio := $v.istio -}}
{{- $labels := include "cognito-authz-sidecar.istioLabels" . -}}
{{- $metadata := include "cognito-authz-sidecar.istioMetadata" . -}}
{{- if not (and $istio.provider $istio.serviceEntry.host) -}}
{{- fail "cognito-authz-sidecar: istio.provider and istio.serviceEntry.host: required; the defaults are cognito-authz-sidecar and cognito-authz.sidecar.internal" -}}
{{- end -}}
{{- $rules := list dict -}}
{{- with $istio.exceptPorts -}}
{{- $ports := list -}}
{{- range . }}{{ $ports = append $ports (int . | toString) }}{{ end -}}
{{- $rules = list (dict "to" (list (dict "operation" (dict "notPorts" $ports)))) -}}
{{- end -}}
---
# Requests that cognito-authz checks: all of them, including those from the mesh, except `istio.exceptPorts`.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  {{- $metadata | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- $labels | nindent 6 }}
  action: CUSTOM
  provider: { name: {{ $istio.provider | quote }} }
  rules:
    {{- toYaml $rules | nindent 4 }}
{{- if $istio.secondLine.enabled }}
---
# Denies the same requests if cognito-authz has not allowed them, even if the policy above is deleted or fails open. It
# is a DENY, because another ALLOW policy could override an ALLOW.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  {{- include "cognito-authz-sidecar.istioMetadata" (merge (dict "suffix" "-second-line") .) | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- $labels | nindent 6 }}
  action: DENY
  rules:
    {{- include "cognito-authz-sidecar.istioSecondLine" (dict "rules" $rules) | nindent 4 }}
{{- end }}
{{- if $istio.envoyFilter.enabled }}
---
# Istio silently ignores a patch that matches nothing, so no policy depends on this. Check after each upgrade of Istio:
#   istioctl proxy-config listener POD -n {{ .root.Release.Namespace }} -o json | grep -c disallowAll   # not 0
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata:
  {{- $metadata | nindent 2 }}
spec:
  workloadSelector:
    labels:
      {{- $labels | nindent 6 }}
  configPatches:
    {{- include "cognito-authz-sidecar.istioPatchesOf" (dict "values" $v "context" "SIDECAR_INBOUND") | nindent 4 }}
{{- end }}
{{- if $istio.serviceEntry.enabled }}
---
# Name of the socket of cognito-authz in each pod. It is in the namespace of those pods, because others have no such
# socket.
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  {{- $metadata | nindent 2 }}
spec:
  hosts: [{{ $istio.serviceEntry.host | quote }}]
  exportTo: ["."]
  location: MESH_EXTERNAL
  ports: [{ number: 9191, name: grpc, protocol: GRPC }]
  resolution: STATIC
  endpoints: [{ address: {{ printf "unix://%s/authz.sock" $v.socket.directory | quote }} }]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  {{- $metadata | nindent 2 }}
spec:
  host: {{ $istio.serviceEntry.host | quote }}
  exportTo: ["."]
  trafficPolicy:
    {{- toYaml $istio.destinationRule.trafficPolicy | nindent 4 }}
{{- end }}
{{- if $istio.peerAuthentication.enabled }}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  {{- $metadata | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- $labels | nindent 6 }}
  mtls: { mode: STRICT }
  {{- $port := regexFind "[0-9]+$" $v.admin.listen }}
  {{- if and $port (not (regexMatch "^([a-z]+:)?(127\\.[0-9.]+|\\[::1\\]|localhost):[0-9]+$" $v.admin.listen)) }}
  portLevelMtls:
    # Prometheus and probes that Istio does not rewrite have no certificate of the mesh.
    {{ $port }}: { mode: PERMISSIVE }
  {{- end }}
{{- end }}
{{- end -}}
{{- end -}}
