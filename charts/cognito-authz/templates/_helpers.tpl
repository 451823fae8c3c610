{{/* Names, labels and the image. Start with "cognito-authz.fullname". */}}

{{- define "cognito-authz.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, because suffixes such as "-headless" follow and a name can have 63. */}}
{{- define "cognito-authz.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if not (contains $name .Release.Name) -}}
{{- $name = printf "%s-%s" .Release.Name $name -}}
{{- else -}}
{{- $name = .Release.Name -}}
{{- end -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "cognito-authz.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* Selectors are immutable: they contain neither the version nor labels from values. */}}
{{- define "cognito-authz.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cognito-authz.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cognito-authz.labels" -}}
{{ include "cognito-authz.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: cognito-authz
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Metadata of an object. Takes (dict "root" $ "suffix" "-x" "namespace" "" "labels" dict "annotations" dict); only "root" is required. */}}
{{- define "cognito-authz.metadata" -}}
{{- $labels := merge dict (.labels | default dict) .root.Values.commonLabels -}}
{{- $labels = mergeOverwrite $labels (include "cognito-authz.labels" .root | fromYaml) -}}
{{- $annotations := merge dict (.annotations | default dict) .root.Values.commonAnnotations -}}
name: {{ .name | default (printf "%s%s" (include "cognito-authz.fullname" .root) (.suffix | default "")) }}
namespace: {{ .namespace | default (include "cognito-authz.namespace" .root) }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "cognito-authz.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cognito-authz.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "cognito-authz.image" -}}
{{- $image := .Values.image -}}
{{- $registry := .Values.global.imageRegistry | default $image.registry -}}
{{- $version := $image.tag | default .Chart.AppVersion | printf ":%s" -}}
{{- if $image.digest }}{{ $version = printf "@%s" $image.digest }}{{ end -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ $image.repository }}{{ $version }}
{{- end -}}

{{- define "cognito-authz.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with uniq $secrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Name of the ConfigMap with the policy file; empty if there is none. */}}
{{- define "cognito-authz.policyConfigMap" -}}
{{- if .Values.existingConfigMap.name -}}
{{- tpl .Values.existingConfigMap.name . -}}
{{- else if .Values.config -}}
{{- include "cognito-authz.fullname" . }}{{ .policySuffix | default "-policy" }}
{{- end -}}
{{- end -}}

{{/* Name of the Secret with the certificate of the listeners; empty if there is none. */}}
{{- define "cognito-authz.tlsSecret" -}}
{{- if .Values.tls.existingSecret -}}
{{- tpl .Values.tls.existingSecret . -}}
{{- else if .Values.tls.certManager.enabled -}}
{{- include "cognito-authz.fullname" . }}-tls
{{- end -}}
{{- end -}}

{{/* Encryption of a listener: "tls", "mtls", or empty. Takes (dict "root" $ "listener" "grpc"). */}}
{{- define "cognito-authz.encryption" -}}
{{- $chosen := index .root.Values.tls .listener -}}
{{- $optional := list "account" "http" | has .listener -}}
{{- $exists := or (not $optional) (index .root.Values .listener).enabled -}}
{{- if and $exists (include "cognito-authz.tlsSecret" .root) (ne $chosen "plain") }}{{ $chosen }}{{ end -}}
{{- end -}}

{{/* Not empty if a listener needs certificates of its clients. */}}
{{- define "cognito-authz.mutual" -}}
{{- range list "grpc" "account" "http" -}}
{{- if eq (include "cognito-authz.encryption" (dict "root" $ "listener" .)) "mtls" }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{/* Address of a listener. Takes (dict "root" $ "listener" "grpc"). */}}
{{- define "cognito-authz.listen" -}}
{{- $encryption := include "cognito-authz.encryption" . -}}
{{- with $encryption }}{{ . }}:{{ end }}[::]:{{ int (index .root.Values .listener).port }}
{{- end -}}

{{/* Files and options of TLS. Returns a YAML list in the form of "cognito-authz.files", but with a list of options. */}}
{{- define "cognito-authz.tlsFiles" -}}
{{- $v := .Values.tls -}}
{{- $path := "/run/secrets/cognito-authz/tls" -}}
{{- $secret := include "cognito-authz.tlsSecret" . -}}
{{- $ca := $v.clientCa.existingSecret | default $secret -}}
{{- $mutual := include "cognito-authz.mutual" . -}}
{{- $shared := and $mutual (eq $ca $secret) -}}
{{- with $secret }}
- name: tls
  # Mounted as a directory: a file mounted with subPath is never updated, and the program reads it again on changes.
  mountPath: {{ $path }}
  options:
    - --tls-cert-file={{ $path }}/tls.crt
    - --tls-key-file={{ $path }}/tls.key
    {{- if $shared }}
    - --tls-client-ca-file={{ $path }}/ca.crt
    {{- end }}
    {{- if $mutual }}
    {{- range $v.clientNames }}
    - {{ printf "--tls-client-names=%s" . | quote }}
    {{- end }}
    {{- end }}
  volume:
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items:
        - { key: tls.crt, path: tls.crt }
        - { key: tls.key, path: tls.key }
        {{- if $shared }}
        - { key: {{ $v.clientCa.key | quote }}, path: ca.crt }
        {{- end }}
{{- if and $mutual (not $shared) }}
- name: tls-client-ca
  mountPath: {{ $path }}-client-ca
  options: [--tls-client-ca-file={{ $path }}-client-ca/ca.crt]
  volume:
    secret:
      secretName: {{ $ca }}
      defaultMode: 0440
      items: [{ key: {{ $v.clientCa.key | quote }}, path: ca.crt }]
{{- end }}
{{- end }}
{{- end -}}

{{/* Files that the container mounts, as a YAML list: those of "cognito-authz.files", then those of TLS. */}}
{{- define "cognito-authz.mounted" -}}
{{- $files := include "cognito-authz.files" (dict "values" .Values "policyConfigMap" (include "cognito-authz.policyConfigMap" .)) | fromYamlArray -}}
{{- concat $files (include "cognito-authz.tlsFiles" . | fromYamlArray) | toYaml -}}
{{- end -}}

{{/* Options of the program, as a YAML list: listeners, files, values, and `extraArgs`. */}}
{{- define "cognito-authz.arguments" -}}
{{- $v := .Values -}}
- "--grpc-listen={{ include "cognito-authz.listen" (dict "root" $ "listener" "grpc") }}"
- "--admin-listen={{ include "cognito-authz.listen" (dict "root" $ "listener" "admin") }}"
{{- if $v.account.enabled }}
- "--account-listen={{ include "cognito-authz.listen" (dict "root" $ "listener" "account") }}"
{{- end }}
{{- if $v.http.enabled }}
- "--http-listen={{ include "cognito-authz.listen" (dict "root" $ "listener" "http") }}"
{{- range $v.http.callers }}
- {{ printf "--http-callers=%s" . | quote }}
{{- end }}
{{- end }}
{{- range include "cognito-authz.tlsFiles" . | fromYamlArray }}
{{- range .options }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- range include "cognito-authz.files" (dict "values" $v "policyConfigMap" (include "cognito-authz.policyConfigMap" .)) | fromYamlArray }}
- {{ .option | quote }}
{{- end }}
{{- range include "cognito-authz.options" (dict "values" $v) | fromYamlArray }}
- {{ . | quote }}
{{- end }}
{{- range $v.extraArgs }}
- {{ tpl . $ | quote }}
{{- end }}
{{- end -}}

{{/* Not empty if there can be more than one pod. */}}
{{- define "cognito-authz.severalPods" -}}
{{- $least := .Values.autoscaling.enabled | ternary .Values.autoscaling.minReplicas .Values.replicaCount -}}
{{- if gt (int $least) 1 }}yes{{ end -}}
{{- end -}}

{{/* Ports of the store of revocations, as a YAML list. Takes the values. Sentinels name a server, whose default port is added. */}}
{{- define "cognito-authz.revocationPorts" -}}
{{- $ports := list -}}
{{- range .networkPolicy.revocationPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- if not $ports -}}
{{- $sentinel := contains "-sentinel://" .revocation.url -}}
{{- $hosts := regexReplaceAll "^[a-z-]+://([^/@]*@)?([^/]*).*$" .revocation.url "${2}" -}}
{{- range splitList "," $hosts -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (regexFind ":[0-9]+$" .) | default ($sentinel | ternary "26379" "6379") | int) -}}
{{- end -}}
{{- if $sentinel }}{{ $ports = append $ports 6379 }}{{ end -}}
{{- end -}}
{{- uniq $ports | toYaml -}}
{{- end -}}

{{/* Not empty if sign-outs can take effect on one pod only: there can be several pods, which share no store. */}}
{{- define "cognito-authz.isolatedRevocations" -}}
{{- $most := .Values.autoscaling.enabled | ternary .Values.autoscaling.maxReplicas .Values.replicaCount -}}
{{- $store := .Values.revocation.url -}}
{{- range .Values.extraArgs }}{{ if hasPrefix "--revocation-url" . }}{{ $store = . }}{{ end }}{{ end -}}
{{- range .Values.extraEnv }}{{ if eq (.name | default "") "COGNITO_AUTHZ_REVOCATION_URL" }}{{ $store = .name }}{{ end }}{{ end -}}
{{- if and .Values.account.enabled (gt (int $most) 1) (not $store) }}yes{{ end -}}
{{- end -}}

{{/* Evaluates templates in a value, which is an object or a text. */}}
{{- define "cognito-authz.tpl" -}}
{{- $text := kindIs "string" .value | ternary .value (toYaml .value) -}}
{{- tpl $text .root -}}
{{- end -}}
