{{/*
What an EnvoyFilter sets: headers that cognito-authz receives and may change, and those that only it may set.
charts/sync writes the sidecar chart's copy of this file.
*/}}

{{/* Pattern for a header's name in every spelling that CGI-like applications take for it: `x[-_.]tenant`. */}}
{{- define "cognito-authz.spellings" -}}
{{- regexReplaceAll "[-_.]" . "-" | lower | regexQuoteMeta | replace "-" "[-_.]" -}}
{{- end -}}

{{/* Patterns of the identity headers, as a YAML list: all names below the prefix, and those of the policy file. Takes (dict "values" …). */}}
{{- define "cognito-authz.identityHeaders" -}}
{{- $names := .values.check.identityHeaders -}}
{{- $file := .values.config | default dict -}}
{{- range $file.claim_headers }}{{ $names = append $names .header }}{{ end -}}
{{- with $file.whole_claims_header }}{{ $names = append $names . }}{{ end -}}
{{- range $file.policies }}{{ range $name, $_ := .headers | default dict }}{{ $names = append $names $name }}{{ end }}{{ end -}}
{{- $prefix := .values.check.headerPrefix | default "x-auth-" -}}
{{- $patterns := list (printf "%s.*" (include "cognito-authz.spellings" $prefix)) -}}
{{- range $names -}}
{{- if not (hasPrefix $prefix (lower .)) }}{{ $patterns = append $patterns (include "cognito-authz.spellings" .) }}{{ end -}}
{{- end -}}
{{- concat (list (first $patterns)) (rest $patterns | uniq | sortAlpha) | toYaml -}}
{{- end -}}

{{/* Headers of `from` in the policy file, as a YAML list: further places of a credential. Takes (dict "values" …). */}}
{{- define "cognito-authz.credentialHeaders" -}}
{{- $names := list -}}
{{- range (.values.config | default dict).policies -}}
{{- $from := .from | default dict -}}
{{- with $from.header }}{{ $names = append $names (lower .) }}{{ end -}}
{{- if $from.websocket_protocol }}{{ $names = append $names "sec-websocket-protocol" }}{{ end -}}
{{- end -}}
{{- $names | uniq | sortAlpha | toYaml -}}
{{- end -}}

{{/*
Patches of an EnvoyFilter for one context, as a YAML list. Takes (dict "values" … "context" "GATEWAY"), and "retry" if
another instance can answer a check.
*/}}
{{- define "cognito-authz.istioPatchesOf" -}}
{{- $identity := include "cognito-authz.identityHeaders" . | fromYamlArray -}}
{{- $credentials := list -}}
{{- range include "cognito-authz.credentialHeaders" . | fromYamlArray -}}
{{- $credentials = append $credentials (include "cognito-authz.spellings" .) -}}
{{- end -}}
# Only cognito-authz may set identity headers.
- applyTo: NETWORK_FILTER
  match:
    context: {{ .context }}
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
    context: {{ .context }}
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
        {{- if .retry }}
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
        {{- end }}
{{- with .values.istio.envoyFilter.corsOrigins }}
# Istio's own CORS filter comes after ext_authz, so pages could not read a 401.
- applyTo: HTTP_FILTER
  match:
    context: {{ $.context }}
    listener: { filterChain: { filter: { name: envoy.filters.network.http_connection_manager } } }
  patch:
    operation: INSERT_FIRST
    value:
      name: cognito-authz.cors
      typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors }
- applyTo: VIRTUAL_HOST
  match: { context: {{ $.context }} }
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
{{- end -}}

{{/* Rules of the second line, as a YAML list: those of the check, for requests without its decision. Takes (dict "rules" …). */}}
{{- define "cognito-authz.istioSecondLine" -}}
{{- $undecided := dict "key" "experimental.envoy.filters.http.ext_authz[decision]" "notValues" (list "allow") -}}
{{- $rules := list -}}
{{- range .rules -}}
{{- $rules = append $rules (merge (dict "when" (append (.when | default list) $undecided)) .) -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end -}}
