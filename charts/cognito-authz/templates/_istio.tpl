{{/* Patches of the EnvoyFilter. They name both the listeners of gateways and those of pods with a sidecar. */}}

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

{{- define "cognito-authz.istioPatches" -}}
{{- $identity := include "cognito-authz.identityHeaders" . | fromYamlArray -}}
{{- $credentials := list -}}
{{- range include "cognito-authz.credentialHeaders" . | fromYamlArray -}}
{{- $credentials = append $credentials (include "cognito-authz.spellings" .) -}}
{{- end -}}
{{- range $context := list "GATEWAY" "SIDECAR_INBOUND" }}
# Only cognito-authz may set identity headers.
- applyTo: NETWORK_FILTER
  match:
    context: {{ $context }}
    listener: { filterChain: { filter: { name: envoy.filters.network.http_connection_manager } } }
  patch:
    operation: MERGE
    value:
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        common_http_protocol_options: { headers_with_underscores_action: REJECT_REQUEST }
        early_header_mutation_extensions:
          - name: envoy.http.early_header_mutation.header_mutation
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations:
                {{- range $identity }}
                - remove_on_match: { key_matcher: { safe_regex: { regex: {{ printf "(?i)%s" . | quote }} } } }
                {{- end }}
- applyTo: HTTP_FILTER
  match:
    context: {{ $context }}
    listener:
      filterChain:
        filter:
          name: envoy.filters.network.http_connection_manager
          subFilter: { name: envoy.filters.http.ext_authz }
  patch:
    operation: MERGE
    value:
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
        stat_prefix: cognito
        validate_mutations: true
        encode_raw_headers: true
        # Istio's provider for gRPC sends every header.
        allowed_headers:
          patterns:
            {{- range $name := list "authorization" "" "x-request-id" "origin" "access-control-request-method" "cookie" "sec-fetch-site" "upgrade" "accept" "sec-fetch-mode" "sec-purpose" "content-type" "content-length" "content-encoding" }}
            {{- if $name }}
            - { exact: {{ $name }}, ignore_case: true }
            {{- else }}
            {{- range concat $identity $credentials }}
            - { safe_regex: { regex: {{ printf "(?i)%s" . | quote }} } }
            {{- end }}
            {{- end }}
            {{- end }}
        decoder_header_mutation_rules:
          disallow_all: true
          allow_expression: { regex: {{ printf "^(%s|authorization|cookie)$" (concat $identity $credentials | join "|") | quote }} }
        grpc_service:
          retry_policy:
            num_retries: 1
            retry_on: connect-failure,refused-stream,reset,unavailable
            retry_back_off: { base_interval: 0.005s, max_interval: 0.120s }
            retry_host_predicate:
              - name: envoy.retry_host_predicates.previous_hosts
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
            host_selection_retry_max_attempts: 64
{{- with $.Values.istio.envoyFilter.corsOrigins }}
# Istio's own CORS filter comes after ext_authz, so pages could not read a 401.
- applyTo: HTTP_FILTER
  match:
    context: {{ $context }}
    listener: { filterChain: { filter: { name: envoy.filters.network.http_connection_manager } } }
  patch:
    operation: INSERT_FIRST
    value:
      name: cognito-authz.cors
      typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors }
- applyTo: VIRTUAL_HOST
  match: { context: {{ $context }} }
  patch:
    operation: MERGE
    value:
      typed_per_filter_config:
        cognito-authz.cors:
          "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
          allow_origin_string_match:
            {{- range . }}
            - { exact: {{ . | quote }} }
            {{- end }}
          allow_methods: GET, HEAD, POST, PUT, PATCH, DELETE
          allow_headers: authorization, content-type
          expose_headers: www-authenticate, retry-after, x-request-id
          max_age: "600"
{{- end }}
{{- end }}
{{- end -}}
