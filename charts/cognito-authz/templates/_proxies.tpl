{{/* What the objects for Istio and Envoy Gateway share: targets, exceptions. _patches.tpl has the headers. */}}

{{/*
Targets of the policies, as a YAML list: the first, then `additionalTargets`. Each has a suffix for the names of its
objects, its namespace, and its own members. Takes (dict "root" $ "policy" .Values.istio.authorizationPolicy).
*/}}
{{- define "cognito-authz.targets" -}}
{{- $first := dict "suffix" "" "namespace" (.policy.namespace | default (include "cognito-authz.namespace" .root)) "targetRefs" .policy.targetRefs "selector" .policy.selector -}}
{{- $targets := list $first -}}
{{- range $index, $target := .policy.additionalTargets -}}
{{- $targets = append $targets (merge (dict "suffix" (printf "-%d" (add $index 2))) $target) -}}
{{- end -}}
{{- toYaml $targets -}}
{{- end -}}

{{/* `selector` and `targetRefs` of an Istio policy, and in an EnvoyFilter the corresponding members. Takes a target. */}}
{{- define "cognito-authz.istioTarget" -}}
{{- with .selector }}
selector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .targetRefs }}
targetRefs:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Paths of the account API that are exact, as a YAML list. */}}
{{- define "cognito-authz.accountPaths" -}}
{{- $prefix := .Values.account.prefix -}}
{{- range list
    "challenge" "change-password" "forgot-password" "login" "logout" "me" "mfa/preference" "mfa/totp" "mfa/totp/verify"
    "oauth/authorize-url" "oauth/callback" "oauth/renew" "oauth/sign-in" "oauth/sign-out" "oauth/token" "openapi.json"
    "refresh" "register" "resend-code" "reset-password" "revoke" "verify" "verify-attribute" "verify-attribute/code"
    "webauthn/credentials" "webauthn/registration"
}}
- {{ trimSuffix "/" $prefix }}/{{ . }}
{{- end }}
{{- end -}}

{{/* Rules of the requests that need a check, as a YAML list. All hosts and paths do, except `exceptions`. */}}
{{- define "cognito-authz.istioRules" -}}
{{- $policy := .Values.istio.authorizationPolicy -}}
{{- $excepted := dict -}}
{{- $account := include "cognito-authz.accountPaths" . | fromYamlArray -}}
{{- range $policy.accountHosts }}{{ $_ := set $excepted . $account }}{{ end -}}
{{- range $exception := $policy.exceptions -}}
{{- range $exception.hosts -}}
{{- $_ := set $excepted . (concat (get $excepted . | default list) $exception.paths | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- if $excepted -}}
- to:
    - operation:
        notHosts:
          {{- keys $excepted | sortAlpha | toYaml | nindent 10 }}
    {{- range $host, $paths := $excepted }}
    - operation:
        hosts: [{{ $host | quote }}]
        notPaths:
          {{- toYaml $paths | nindent 10 }}
    {{- end }}
{{- else -}}
{{- toYaml $policy.rules -}}
{{- end -}}
{{- end -}}

{{/* Gateways whose ClientTrafficPolicy the chart creates, as a YAML list of {namespace, name, sectionName}. */}}
{{- define "cognito-authz.gateways" -}}
{{- $gateways := .Values.envoyGateway.clientTrafficPolicy.gateways -}}
{{- if not $gateways -}}
{{- range include "cognito-authz.targets" (dict "root" . "policy" .Values.envoyGateway.securityPolicy) | fromYamlArray -}}
{{- $namespace := .namespace -}}
{{- range .targetRefs -}}
{{- if eq .kind "Gateway" }}{{ $gateways = append $gateways (merge (dict "namespace" $namespace) (pick . "name" "sectionName")) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- uniq $gateways | toYaml -}}
{{- end -}}
