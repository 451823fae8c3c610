{{/* Rejects values that are valid one by one, but not together. Each message says how to fix it. */}}
{{- define "cognito-authz.validate" -}}
{{- $v := .Values -}}
{{- $pool := $v.userPool -}}
{{- $ownPolicy := $v.existingConfigMap.name -}}
{{- if and $v.config $ownPolicy -}}
{{- fail "config and existingConfigMap.name: set only one of them" -}}
{{- end -}}
{{- if not (or $pool.id (dig "pools" dict $v.config) $ownPolicy) -}}
{{- fail "userPool.id: required, for example --set userPool.id=eu-west-1_AbC123xyz (or pools in config.pools)" -}}
{{- end -}}
{{- if and $pool.id (not $pool.clientIds) -}}
{{- fail "userPool.clientIds: list the app clients whose tokens are accepted, for example --set 'userPool.clientIds={3n4b5urk1ft4fl3mg5e62d9ado}'; {any} accepts all clients of the pool" -}}
{{- end -}}
{{- if $v.account.enabled -}}
{{- $one := and (eq (len $pool.clientIds) 1) (ne (first $pool.clientIds) "any") -}}
{{- if not (or $one $v.account.clientId $v.config.account $ownPolicy) -}}
{{- fail "account.clientId: required, because userPool.clientIds does not have exactly one entry; set the app client that the account API uses" -}}
{{- end -}}
{{- else if or $v.account.ingress.enabled $v.account.httpRoute.enabled -}}
{{- fail "account.ingress and account.httpRoute: require account.enabled" -}}
{{- end -}}
{{- if and $v.account.ingress.enabled (not $v.account.ingress.hosts) -}}
{{- fail "account.ingress.hosts: list at least one host" -}}
{{- end -}}
{{- if and $v.account.httpRoute.enabled (not $v.account.httpRoute.parentRefs) -}}
{{- fail "account.httpRoute.parentRefs: name the Gateway" -}}
{{- end -}}
{{- if and $v.account.enabled (gt (int $v.account.trustedHops) 0) (not $v.account.callersLimitedElsewhere) -}}
{{- $open := not (and $v.networkPolicy.enabled $v.networkPolicy.accountFrom) -}}
{{- range $v.networkPolicy.accountFrom -}}
{{- $anywhere := has (dig "ipBlock" "cidr" "" .) (list "0.0.0.0/0" "::/0") -}}
{{- $anyNamespace := and (hasKey . "namespaceSelector") (not (dig "namespaceSelector" "matchLabels" dict .)) -}}
{{- range dig "namespaceSelector" "matchExpressions" list . -}}
{{- if not (and (eq .operator "Exists") (eq .key "kubernetes.io/metadata.name")) }}{{ $anyNamespace = false }}{{ end -}}
{{- end -}}
{{- $anyPod := and (not (dig "podSelector" "matchLabels" dict .)) (not (dig "podSelector" "matchExpressions" list .)) -}}
{{- if or $anywhere (and $anyNamespace $anyPod) }}{{ $open = true }}{{ end -}}
{{- end -}}
{{- if $open -}}
{{- fail "account.trustedHops: X-Forwarded-For is trusted, so every pod that reaches the port can forge its address and escape its rate limit. List the proxies in networkPolicy.accountFrom (with networkPolicy.enabled), for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}]; if something else lets only the proxies in, set account.callersLimitedElsewhere" -}}
{{- end -}}
{{- end -}}
{{- include "cognito-authz.validateRevocation" (dict "values" $v) -}}
{{- $file := false -}}
{{- range $v.extraArgs }}{{ if regexMatch "^--revocation-file(=|$)" . }}{{ $file = true }}{{ end }}{{ end -}}
{{- range $v.extraEnv }}{{ if eq (.name | default "") "COGNITO_AUTHZ_REVOCATION_FILE" }}{{ $file = true }}{{ end }}{{ end -}}
{{- if $file -}}
{{- if $v.revocation.url -}}
{{- fail "revocation.url: excludes the option revocation-file, because the store keeps every revocation" -}}
{{- end -}}
{{- if or $v.autoscaling.enabled (gt (int $v.replicaCount) 1) (ne (dig "type" "" $v.strategy) "Recreate") -}}
{{- fail "extraArgs: the option revocation-file is for one process at a time. Use revocation.url, or set replicaCount to 1, autoscaling.enabled to false and strategy to {type: Recreate, rollingUpdate: null}" -}}
{{- end -}}
{{- end -}}
{{- $ports := list (int $v.grpc.port) (int $v.admin.port) (int $v.account.port) (int $v.http.port) -}}
{{- if ne (len (uniq $ports)) 4 -}}
{{- fail "grpc.port, admin.port, account.port, http.port: must differ" -}}
{{- end -}}
{{- if and $v.http.enabled (not $v.http.callers) -}}
{{- fail "http.callers: list the networks of the proxies that may ask, for example --set 'http.callers={10.1.0.0/16}'; the program's default, loopback, admits no pod" -}}
{{- end -}}
{{- with $v.tls -}}
{{- if and .certManager.enabled .existingSecret -}}
{{- fail "tls.existingSecret and tls.certManager.enabled: set only one of them" -}}
{{- end -}}
{{- if and .certManager.enabled (not .certManager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef: name the issuer, for example {kind: ClusterIssuer, name: internal}" -}}
{{- end -}}
{{- $secret := include "cognito-authz.tlsSecret" $ -}}
{{- $encrypted := list -}}
{{- range list "grpc" "admin" "account" -}}
{{- if include "cognito-authz.encryption" (dict "root" $ "listener" .) }}{{ $encrypted = append $encrypted . }}{{ end -}}
{{- end -}}
{{- if and $secret (not $encrypted) -}}
{{- fail "tls: a certificate is configured, but tls.grpc, tls.admin and tls.account are all plain" -}}
{{- end -}}
{{- if not $secret -}}
{{- if or (eq .grpc "mtls") (ne .admin "plain") (ne .account "plain") .clientNames .clientCa.existingSecret -}}
{{- fail "tls: no listener is encrypted, because there is no certificate; set tls.existingSecret or tls.certManager" -}}
{{- end -}}
{{- else if and (or .clientNames .clientCa.existingSecret) (not (include "cognito-authz.mutual" $)) -}}
{{- fail "tls.clientNames, tls.clientCa: no listener verifies clients; set tls.grpc or tls.account to mtls" -}}
{{- end -}}
{{- end -}}
{{- with $v.envoyGateway.backendTlsPolicy -}}
{{- if .enabled -}}
{{- if not .caConfigMap -}}
{{- fail "envoyGateway.backendTlsPolicy.caConfigMap: name the ConfigMap with the CA of the certificate (key ca.crt)" -}}
{{- end -}}
{{- if not (or (include "cognito-authz.encryption" (dict "root" $ "listener" "grpc")) (include "cognito-authz.encryption" (dict "root" $ "listener" "account"))) -}}
{{- fail "envoyGateway.backendTlsPolicy: requires tls.existingSecret or tls.certManager, and tls.grpc or tls.account" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $v.metrics -}}
{{- if and .serviceMonitor.enabled .podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor: enable only one of them, otherwise every sample exists twice" -}}
{{- end -}}
{{- if and .serviceMonitor.enabled (not .service.enabled) -}}
{{- fail "metrics.serviceMonitor: requires metrics.service.enabled" -}}
{{- end -}}
{{- end -}}
{{- with $v.podDisruptionBudget -}}
{{- if and .enabled (not (kindIs "invalid" .minAvailable)) (not (kindIs "invalid" .maxUnavailable)) -}}
{{- fail "podDisruptionBudget: minAvailable requires maxUnavailable: null" -}}
{{- end -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling: minReplicas is greater than maxReplicas" -}}
{{- end -}}
{{- include "cognito-authz.validateProxies" . -}}
{{- $seconds := "^[0-9]+s$" -}}
{{- if and (regexMatch $seconds $v.shutdown.delay) (regexMatch $seconds $v.shutdown.deadline) -}}
{{- $needed := add (trimSuffix "s" $v.shutdown.delay) (trimSuffix "s" $v.shutdown.deadline) -}}
{{- if le (int $v.terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds: must be more than shutdown.delay and shutdown.deadline together (%d s), otherwise checks in flight are cut off" $needed) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The part for Istio and Envoy Gateway. Also catches what the schema rejects, if Helm skips it. */}}
{{- define "cognito-authz.validateProxies" -}}
{{- $v := .Values -}}
{{- with $v.istio.authorizationPolicy -}}
{{- if .enabled -}}
{{- $targets := include "cognito-authz.targets" (dict "root" $ "policy" .) | fromYamlArray -}}
{{- range $target := $targets -}}
{{- $name := empty $target.suffix | ternary "istio.authorizationPolicy" "istio.authorizationPolicy.additionalTargets" -}}
{{- if and .selector .targetRefs -}}
{{- fail (printf "%s: selector and targetRefs exclude each other" $name) -}}
{{- end -}}
{{- if .selector -}}
{{- /* The API server drops unknown fields, and an empty selector matches every pod. */ -}}
{{- $labels := get .selector "matchLabels" -}}
{{- $right := and (eq (len .selector) 1) (kindIs "map" $labels) (not (empty $labels)) -}}
{{- if $right }}{{ range $labels }}{{ if not (kindIs "string" .) }}{{ $right = false }}{{ end }}{{ end }}{{ end -}}
{{- if not $right -}}
{{- fail (printf "%s.selector: needs matchLabels and nothing else, for example {matchLabels: {istio: ingress}}" $name) -}}
{{- end -}}
{{- end -}}
{{- range .targetRefs -}}
{{- if and $v.istio.envoyFilter.enabled (not (has .kind (list "Gateway" "GatewayClass"))) -}}
{{- fail (printf "istio.envoyFilter: %s %s is a target of waypoints, to which EnvoyFilters do not apply; set istio.envoyFilter.enabled to false, and let applications accept requests from waypoints only" .kind .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not (or .selector .targetRefs .namespace) -}}
{{- fail "istio.authorizationPolicy: name the proxies that request checks, with targetRefs, selector or namespace; without them the policy would apply to the pods of this release" -}}
{{- end -}}
{{- if and (or .exceptions .accountHosts) (ne (toJson .rules) "[{}]") -}}
{{- fail "istio.authorizationPolicy: exceptions and accountHosts exclude rules" -}}
{{- end -}}
{{- if and .accountHosts (not $v.account.enabled) -}}
{{- fail "istio.authorizationPolicy.accountHosts: requires account.enabled" -}}
{{- end -}}
{{- else if or .exceptions .accountHosts .additionalTargets -}}
{{- fail "istio.authorizationPolicy: exceptions, accountHosts and additionalTargets have no effect without istio.authorizationPolicy.enabled" -}}
{{- end -}}
{{- end -}}
{{- if and $v.istio.mesh.enabled (not (or $v.istio.authorizationPolicy.enabled $v.istio.mesh.callers)) -}}
{{- fail "istio.mesh.callers: list the namespaces of the proxies that request checks; all others are denied" -}}
{{- end -}}
{{- with $v.envoyGateway -}}
{{- if .securityPolicy.enabled -}}
{{- if not .securityPolicy.targetRefs -}}
{{- fail "envoyGateway.securityPolicy.targetRefs: name the Gateway whose requests need a check, for example [{group: gateway.networking.k8s.io, kind: Gateway, name: ingress}]" -}}
{{- end -}}
{{- if and $v.account.enabled $v.account.httpRoute.enabled (not $v.account.httpRoute.hostnames) (not $v.account.httpRoute.anyHost) -}}
{{- fail "account.httpRoute.hostnames: required with envoyGateway.securityPolicy, because the account API's route needs no check on its hosts; if that is right for every host of the Gateway, set account.httpRoute.anyHost" -}}
{{- end -}}
{{- if and (or .clientTrafficPolicy.enabled .publicRoutes) (not (include "cognito-authz.gateways" $ | fromYamlArray)) -}}
{{- fail "envoyGateway.clientTrafficPolicy.gateways: name the Gateway of the routes in securityPolicy.targetRefs, for example [{namespace: ingress, name: ingress}], or set clientTrafficPolicy.enabled to false; without it, a client's forged identity headers reach routes that need no check" -}}
{{- end -}}
{{- else if or .publicRoutes .securityPolicy.additionalTargets .clientTrafficPolicy.gateways -}}
{{- fail "envoyGateway: publicRoutes, additionalTargets and gateways have no effect without envoyGateway.securityPolicy.enabled" -}}
{{- end -}}
{{- end -}}
{{- end -}}
