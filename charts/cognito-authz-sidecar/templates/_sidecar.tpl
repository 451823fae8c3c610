{{/*
The sidecar, for templates of other charts. Each takes (dict "root" $), and "values" if the dependency has an alias:

  cognito-authz-sidecar.nativeContainer  an entry of initContainers, before Envoy's
  cognito-authz-sidecar.container        an entry of containers, for clusters or meshes without native sidecars
  cognito-authz-sidecar.volumes          entries of volumes
  cognito-authz-sidecar.socketMount      an entry of volumeMounts of Envoy's container
  cognito-authz-sidecar.policyConfigMap  a ConfigMap with the policy file, if there is one; a separate document

_istio.tpl has those for Istio.
*/}}

{{- define "cognito-authz-sidecar.values" -}}
{{- .values | default (index .root.Values "cognito-authz-sidecar") | toYaml -}}
{{- end -}}

{{- define "cognito-authz-sidecar.policyConfigMapName" -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
{{- if $v.existingConfigMap.name -}}
{{- tpl $v.existingConfigMap.name .root -}}
{{- else if $v.config -}}
{{- printf "%s-%s-policy" (.root.Release.Name | trunc 40 | trimSuffix "-") $v.name | trunc 63 -}}
{{- end -}}
{{- end -}}

{{- define "cognito-authz-sidecar.ownFiles" -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
{{- include "cognito-authz-sidecar.files" (dict "values" $v "policyConfigMap" (include "cognito-authz-sidecar.policyConfigMapName" .)) -}}
{{- end -}}

{{- define "cognito-authz-sidecar.container" -}}
{{- $root := .root -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
{{- if not (or $v.userPool.id (dig "pools" dict ($v.config | default dict)) $v.existingConfigMap.name) -}}
{{- fail "cognito-authz-sidecar: userPool.id: required, for example eu-west-1_AbC123xyz (or pools in config.pools)" -}}
{{- end -}}
{{- if and $v.userPool.id (not $v.userPool.clientIds) -}}
{{- fail "cognito-authz-sidecar: userPool.clientIds: list the app clients whose tokens are accepted; [any] accepts all clients of the pool" -}}
{{- end -}}
{{- include "cognito-authz-sidecar.validateRevocation" (dict "values" $v) -}}
{{- if and $v.account.enabled (gt (int $v.account.trustedHops) 0) (not (regexMatch "^(127\\.[0-9.]+|\\[::1\\]|localhost):[0-9]+$" $v.account.listen)) -}}
{{- fail "cognito-authz-sidecar: account.listen: with account.trustedHops, X-Forwarded-For is trusted, so only Envoy in the same pod may reach the port: set it to 127.0.0.1:9192" -}}
{{- end -}}
{{- $registry := dig "imageRegistry" "" (.root.Values.global | default dict) | default $v.image.registry -}}
- name: {{ $v.name }}
  image: {{ printf "%s%s%s" (empty $registry | ternary "" (printf "%s/" $registry)) $v.image.repository (empty $v.image.digest | ternary (printf ":%s" ($v.image.tag | default (include "cognito-authz-sidecar.appVersion" $root))) (printf "@%s" $v.image.digest)) | quote }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  {{- if .native }}
  # A native sidecar: starts before the containers that follow, and ends after all others.
  restartPolicy: Always
  {{- end }}
  args:
    - "--grpc-listen=unix:{{ $v.socket.directory }}/authz.sock"
    - "--grpc-socket-mode={{ $v.socket.mode }}"
    - "--admin-listen={{ $v.admin.listen }}"
    {{- if $v.account.enabled }}
    - "--account-listen={{ $v.account.listen }}"
    {{- end }}
    {{- range include "cognito-authz-sidecar.ownFiles" . | fromYamlArray }}
    - {{ .option | quote }}
    {{- end }}
    {{- range include "cognito-authz-sidecar.options" (dict "values" $v) | fromYamlArray }}
    - {{ . | quote }}
    {{- end }}
    {{- range $v.extraArgs }}
    - {{ tpl . $root | quote }}
    {{- end }}
  {{- if or $v.tracing.endpoint $v.extraEnv }}
  env:
    {{- range include "cognito-authz-sidecar.environment" (dict "values" $v) | fromYamlArray }}
    - { name: {{ .name }}, value: {{ .value | quote }} }
    {{- end }}
    {{- with $v.extraEnv }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- range $probe := list "startupProbe" "readinessProbe" "livenessProbe" }}
  {{- with index $v $probe }}
  {{ $probe }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $v.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    {{- include "cognito-authz-sidecar.socketMount" . | nindent 4 }}
    {{- range include "cognito-authz-sidecar.ownFiles" . | fromYamlArray }}
    - { name: cognito-authz-{{ .name }}, mountPath: {{ .mountPath }}, readOnly: true }
    {{- end }}
    {{- with $v.extraVolumeMounts }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "cognito-authz-sidecar.nativeContainer" -}}
{{- include "cognito-authz-sidecar.container" (merge (dict "native" true) .) -}}
{{- end -}}

{{- define "cognito-authz-sidecar.socketMount" -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
- { name: cognito-authz-socket, mountPath: {{ $v.socket.directory }} }
{{- end -}}

{{- define "cognito-authz-sidecar.volumes" -}}
- name: cognito-authz-socket
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- range include "cognito-authz-sidecar.ownFiles" . | fromYamlArray }}
- name: cognito-authz-{{ .name }}
  {{- toYaml .volume | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "cognito-authz-sidecar.policyConfigMap" -}}
{{- $v := include "cognito-authz-sidecar.values" . | fromYaml -}}
{{- if and $v.config (not $v.existingConfigMap.name) -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "cognito-authz-sidecar.policyConfigMapName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    app.kubernetes.io/instance: {{ .root.Release.Name }}
    app.kubernetes.io/managed-by: {{ .root.Release.Service }}
data:
  policy.yaml: |
    {{- toYaml $v.config | nindent 4 }}
{{- end -}}
{{- end -}}
