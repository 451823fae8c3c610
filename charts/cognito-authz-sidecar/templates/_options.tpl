{{/*
Options of the program, from values. Takes (dict "values" …); returns a YAML list.

An empty value sets no option, so the program's default applies; 0 is not empty. A list repeats the option.
Written by charts/sync: a copy of the file of the chart cognito-authz.
*/}}
{{- define "cognito-authz-sidecar.options" -}}
{{- $v := .values -}}
{{- $table := list
    (list "user-pool-id" $v.userPool.id)
    (list "client-id" $v.userPool.clientIds)
    (list "token-use" $v.userPool.tokenUse)
    (list "region" $v.userPool.region)
    (list "cognito-endpoint" $v.userPool.endpoint)
    (list "jwks-url" $v.userPool.jwksUrl)
    (list "issuer" $v.userPool.issuers)
    (list "jwks-refresh-interval" $v.userPool.jwksRefreshInterval)
    (list "allow-insecure-endpoints" $v.userPool.allowInsecureEndpoints)
    (list "leeway" $v.check.leeway)
    (list "header-prefix" $v.check.headerPrefix)
    (list "realm" $v.check.realm)
    (list "token-cache-capacity" $v.check.tokenCache.capacity)
    (list "token-cache-max-bytes" $v.check.tokenCache.maxBytes)
    (list "grpc-threads" $v.grpc.threads)
    (list "grpc-max-connections" $v.grpc.maxConnections)
    (list "grpc-max-streams" $v.grpc.maxStreams)
    (list "grpc-max-message-bytes" $v.grpc.maxMessageBytes)
    (list "revocation-url" $v.revocation.url)
    (list "revocation-required" $v.revocation.required)
    (list "revocation-capacity" $v.revocation.capacity)
    (list "max-token-life" $v.revocation.maxTokenLife)
    (list "shutdown-delay" $v.shutdown.delay)
    (list "shutdown-deadline" $v.shutdown.deadline)
    (list "trace-ratio" $v.tracing.ratio)
    (list "trace-trust-headers" $v.tracing.trustHeaders)
    (list "log-level" $v.log.level)
    (list "log-format" $v.log.format)
    (list "log-lines-per-second" $v.log.linesPerSecond)
    (list "log-allowed-ratio" (kindIs "invalid" $v.log.allowedRatio | ternary "" (toString $v.log.allowedRatio)))
-}}
{{- $account := list
    (list "account-prefix" $v.account.prefix)
    (list "account-client-id" $v.account.clientId)
    (list "trusted-hops" $v.account.trustedHops)
    (list "cors-origins" $v.account.corsOrigins)
    (list "account-attributes" $v.account.attributes)
    (list "client-metadata-keys" $v.account.clientMetadataKeys)
    (list "forward-client-address" $v.account.forwardClientAddress)
    (list "totp-issuer" $v.account.totpIssuer)
    (list "refresh-flow" $v.account.refreshFlow)
    (list "cognito-timeout" $v.account.cognitoTimeout)
    (list "limit-address" $v.account.limits.address)
    (list "limit-user" $v.account.limits.user)
    (list "limit-sends" $v.account.limits.sends)
    (list "account-min-failure-time" $v.account.minFailureTime)
    (list "account-hide-users" $v.account.hideUsers)
    (list "hosted-ui-domain" $v.account.hostedUi.domain)
    (list "oauth-redirect-uris" $v.account.hostedUi.redirectUris)
    (list "oauth-logout-uris" $v.account.hostedUi.logoutUris)
    (list "oauth-scopes" $v.account.hostedUi.scopes)
    (list "account-cookies" $v.account.cookies.enabled)
    (list "account-cookie-max-age" $v.account.cookies.maxAge)
-}}
{{- if $v.account.enabled -}}
{{- $table = concat $table $account -}}
{{- else -}}
{{- $table = append $table (list "account-api" "false") -}}
{{- end -}}
{{- $args := list -}}
{{- range $table -}}
{{- $option := first . -}}
{{- $value := last . -}}
{{- if kindIs "slice" $value -}}
{{- range $value }}{{ $args = append $args (printf "--%s=%s" $option .) }}{{ end -}}
{{- else if kindIs "bool" $value -}}
{{- if $value }}{{ $args = append $args (printf "--%s=true" $option) }}{{ end -}}
{{- else if kindIs "string" $value -}}
{{- if $value }}{{ $args = append $args (printf "--%s=%s" $option $value) }}{{ end -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $whole := eq (float64 (int64 $value)) (float64 $value) -}}
{{- $args = append $args (printf "--%s=%s" $option ($whole | ternary (printf "%d" (int64 $value)) (toString $value))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $args -}}
{{- end -}}

{{/* Files for options, each from a ConfigMap or Secret. Takes (dict "values" … "policyConfigMap" …); returns a YAML list of {volume, mount, option, source}. */}}
{{- define "cognito-authz-sidecar.files" -}}
{{- $v := .values -}}
{{- $secrets := "/run/secrets/cognito-authz" -}}
{{- with .policyConfigMap }}
- name: policy
  # Mounted as a directory: a file mounted with subPath is never updated, and the program reloads the file on changes.
  mountPath: /etc/cognito-authz
  option: --config=/etc/cognito-authz/policy.yaml
  volume:
    configMap:
      name: {{ . }}
      items: [{ key: {{ empty $v.existingConfigMap.name | ternary "policy.yaml" $v.existingConfigMap.key | quote }}, path: policy.yaml }]
{{- end }}
{{- with $v.userPool.jwksConfigMap.name }}
- name: jwks
  mountPath: /run/cognito-authz-jwks
  option: --jwks-file=/run/cognito-authz-jwks/jwks.json
  volume:
    configMap:
      name: {{ . }}
      items: [{ key: {{ $v.userPool.jwksConfigMap.key | quote }}, path: jwks.json }]
{{- end }}
{{- if $v.account.enabled }}
{{- with $v.account.existingSecret.name }}
- name: client-secret
  mountPath: {{ $secrets }}/client
  option: --client-secret-file={{ $secrets }}/client/client-secret
  volume:
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items: [{ key: {{ $v.account.existingSecret.key | quote }}, path: client-secret }]
{{- end }}
{{- with $v.account.hostedUi.stateKeySecret.name }}
- name: oauth-state-key
  mountPath: {{ $secrets }}/oauth
  option: --oauth-state-key-file={{ $secrets }}/oauth/oauth-state-key
  volume:
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items: [{ key: {{ $v.account.hostedUi.stateKeySecret.key | quote }}, path: oauth-state-key }]
{{- end }}
{{- end }}
{{- with $v.admin.tokenSecret.name }}
- name: admin-token
  # Mounted as a directory: the program reads the file again when the Secret changes.
  mountPath: {{ $secrets }}/admin
  option: --admin-token-file={{ $secrets }}/admin/admin-token
  volume:
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items: [{ key: {{ $v.admin.tokenSecret.key | quote }}, path: admin-token }]
{{- end }}
{{- with $v.revocation.existingSecret.name }}
- name: revocation-password
  # Mounted as a directory: the program reads the file for each connection, so the password can be rotated.
  mountPath: {{ $secrets }}/revocation
  option: --revocation-password-file={{ $secrets }}/revocation/password
  volume:
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items: [{ key: {{ $v.revocation.existingSecret.key | quote }}, path: password }]
{{- end }}
{{- range $kind, $name := dict "secret" $v.revocation.caSecret.name "configMap" $v.revocation.caConfigMap.name }}
{{- if $name }}
- name: revocation-ca
  mountPath: /run/cognito-authz-revocation-ca
  option: --revocation-ca-file=/run/cognito-authz-revocation-ca/ca.crt
  volume:
    {{ $kind }}:
      {{ eq $kind "secret" | ternary "secretName" "name" }}: {{ $name }}
      items: [{ key: {{ eq $kind "secret" | ternary $v.revocation.caSecret.key $v.revocation.caConfigMap.key | quote }}, path: ca.crt }]
{{- end }}
{{- end }}
{{- end -}}

{{/* Rejects values of `revocation` that contradict each other. Takes (dict "values" …). */}}
{{- define "cognito-authz-sidecar.validateRevocation" -}}
{{- $r := .values.revocation -}}
{{- if and $r.caSecret.name $r.caConfigMap.name -}}
{{- fail "revocation.caSecret and revocation.caConfigMap: set only one of them" -}}
{{- end -}}
{{- $ca := or $r.caSecret.name $r.caConfigMap.name -}}
{{- if $r.url -}}
{{- if regexMatch "^[a-z-]+://[^/@]*:[^/@]*@" $r.url -}}
{{- fail "revocation.url: contains a password, which Helm would store in the release; put it into a Secret and name that in revocation.existingSecret" -}}
{{- end -}}
{{- if and (regexMatch "^[a-z-]+://[^/@]+@" $r.url) (not $r.existingSecret.name) -}}
{{- fail "revocation.existingSecret: required, because revocation.url names a user; set the Secret with that user's password" -}}
{{- end -}}
{{- if and $ca (not (hasPrefix "rediss" $r.url)) -}}
{{- fail "revocation.caSecret and revocation.caConfigMap: have no effect, because revocation.url has no TLS; use a URL that begins with rediss" -}}
{{- end -}}
{{- else if or $r.existingSecret.name $ca $r.required -}}
{{- fail "revocation.existingSecret, caSecret, caConfigMap, required: have no effect without revocation.url" -}}
{{- end -}}
{{- end -}}

{{/* Environment variables of traces, from values. Takes (dict "values" …); returns a YAML list. */}}
{{- define "cognito-authz-sidecar.environment" -}}
{{- with .values.tracing -}}
{{- if .endpoint }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }} }
{{- if .protocol }}
- { name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ .protocol | quote }} }
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "cognito-authz-sidecar.appVersion" -}}0.1.0{{- end -}}
