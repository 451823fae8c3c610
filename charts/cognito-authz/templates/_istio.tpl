{{/* Parts of the objects for Istio. _patches.tpl has the patches of the EnvoyFilter. */}}

{{/* Proxies of an EnvoyFilter: like the policy's, but a selector has the form of a WorkloadSelector. Takes a target. */}}
{{- define "cognito-authz.istioWorkloads" -}}
{{- with .selector }}
workloadSelector:
  labels:
    {{- toYaml .matchLabels | nindent 4 }}
{{- end }}
{{- with .targetRefs }}
targetRefs:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Namespaces whose proxies may request checks, as a YAML list. */}}
{{- define "cognito-authz.meshCallers" -}}
{{- $callers := .Values.istio.mesh.callers -}}
{{- if .Values.istio.authorizationPolicy.enabled -}}
{{- range include "cognito-authz.targets" (dict "root" . "policy" .Values.istio.authorizationPolicy) | fromYamlArray -}}
{{- $callers = append $callers .namespace -}}
{{- end -}}
{{- end -}}
{{- uniq $callers | sortAlpha | toYaml -}}
{{- end -}}

{{/* Patches of the EnvoyFilter. They name both the listeners of gateways and those of pods with a sidecar. */}}
{{- define "cognito-authz.istioPatches" -}}
{{- range $context := list "GATEWAY" "SIDECAR_INBOUND" }}
{{- include "cognito-authz.istioPatchesOf" (dict "values" $.Values "context" $context "retry" true) | nindent 0 }}
{{- end }}
{{- end -}}
