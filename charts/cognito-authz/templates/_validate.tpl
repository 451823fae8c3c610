{{/* Values that are well-formed one by one, and make no sense together. Each message says what to do. */}}
{{- define "cognito-authz.validate" -}}
{{- $v := .Values -}}
{{- $pool := $v.userPool -}}
{{- $ownPolicy := $v.existingConfigMap.name -}}
{{- if and $v.config $ownPolicy -}}
{{- fail "config and existingConfigMap.name: give one of the two" -}}
{{- end -}}
{{- if not (or $pool.id (dig "pools" dict $v.config) $ownPolicy) -}}
{{- fail "userPool.id: needed, for example --set userPool.id=eu-west-1_AbC123xyz (or pools in config.pools)" -}}
{{- end -}}
{{- if and $pool.id (not $pool.clientIds) -}}
{{- fail "userPool.clientIds: name the app clients whose tokens are accepted, for example --set 'userPool.clientIds={3n4b5urk1ft4fl3mg5e62d9ado}'; to accept all of the pool, type out {any}" -}}
{{- end -}}
{{- if $v.account.enabled -}}
{{- $one := and (eq (len $pool.clientIds) 1) (ne (first $pool.clientIds) "any") -}}
{{- if not (or $one $v.account.clientId $v.config.account $ownPolicy) -}}
{{- fail "account.clientId: name the app client that the account API speaks for, because userPool.clientIds does not name exactly one" -}}
{{- end -}}
{{- else if or $v.account.ingress.enabled $v.account.httpRoute.enabled -}}
{{- fail "account.ingress and account.httpRoute: need account.enabled" -}}
{{- end -}}
{{- if and $v.account.ingress.enabled (not $v.account.ingress.hosts) -}}
{{- fail "account.ingress.hosts: name at least one host" -}}
{{- end -}}
{{- if and $v.account.httpRoute.enabled (not $v.account.httpRoute.parentRefs) -}}
{{- fail "account.httpRoute.parentRefs: name the Gateway" -}}
{{- end -}}
{{- if and $v.account.enabled (gt (int $v.account.trustedHops) 0) (not $v.account.callersLimitedElsewhere) -}}
{{- $open := not (and $v.networkPolicy.enabled $v.networkPolicy.accountFrom) -}}
{{- range $v.networkPolicy.accountFrom -}}
{{- $anywhere := has (dig "ipBlock" "cidr" "" .) (list "0.0.0.0/0" "::/0") -}}
{{- $anyNamespace := and (hasKey . "namespaceSelector") (not (dig "namespaceSelector" "matchLabels" dict .)) (not (dig "namespaceSelector" "matchExpressions" list .)) -}}
{{- $anyPod := and (not (dig "podSelector" "matchLabels" dict .)) (not (dig "podSelector" "matchExpressions" list .)) -}}
{{- if or $anywhere (and $anyNamespace $anyPod) }}{{ $open = true }}{{ end -}}
{{- end -}}
{{- if $open -}}
{{- fail "account.trustedHops: X-Forwarded-For is believed, so every pod that reaches the port chooses its own address and has no limit of its own. Name the proxies in networkPolicy.accountFrom (with networkPolicy.enabled), for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}]; if something else keeps all others away, set account.callersLimitedElsewhere" -}}
{{- end -}}
{{- end -}}
{{- $ports := list (int $v.grpc.port) (int $v.admin.port) (int $v.account.port) -}}
{{- if ne (len (uniq $ports)) 3 -}}
{{- fail "grpc.port, admin.port, account.port: have to differ" -}}
{{- end -}}
{{- with $v.metrics -}}
{{- if and .serviceMonitor.enabled .podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor: switch on one of the two, or every sample is there twice" -}}
{{- end -}}
{{- if and .serviceMonitor.enabled (not .service.enabled) -}}
{{- fail "metrics.serviceMonitor: needs metrics.service.enabled" -}}
{{- end -}}
{{- end -}}
{{- with $v.podDisruptionBudget -}}
{{- if and .enabled (not (kindIs "invalid" .minAvailable)) (not (kindIs "invalid" .maxUnavailable)) -}}
{{- fail "podDisruptionBudget: minAvailable needs maxUnavailable: null" -}}
{{- end -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling: minReplicas is more than maxReplicas" -}}
{{- end -}}
{{- with $v.istio.authorizationPolicy -}}
{{- if .enabled -}}
{{- if and .selector .targetRefs -}}
{{- fail "istio.authorizationPolicy: selector and targetRefs exclude each other" -}}
{{- end -}}
{{- if .selector -}}
{{- /* The API server drops members that it does not know, and an empty selector is every pod. */ -}}
{{- $labels := get .selector "matchLabels" -}}
{{- $right := and (eq (len .selector) 1) (kindIs "map" $labels) (not (empty $labels)) -}}
{{- if $right }}{{ range $labels }}{{ if not (kindIs "string" .) }}{{ $right = false }}{{ end }}{{ end }}{{ end -}}
{{- if not $right -}}
{{- fail "istio.authorizationPolicy.selector: needs matchLabels and nothing else, for example {matchLabels: {istio: ingress}}" -}}
{{- end -}}
{{- end -}}
{{- if not (or .selector .targetRefs .namespace) -}}
{{- fail "istio.authorizationPolicy: name the proxies that ask, by targetRefs, selector or namespace; without them the pods of this release would ask themselves" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.envoyGateway.securityPolicy.enabled (not $v.envoyGateway.securityPolicy.targetRefs) -}}
{{- fail "envoyGateway.securityPolicy.targetRefs: name the Gateway whose requests need a check, for example [{group: gateway.networking.k8s.io, kind: Gateway, name: ingress}]" -}}
{{- end -}}
{{- $seconds := "^[0-9]+s$" -}}
{{- if and (regexMatch $seconds $v.shutdown.delay) (regexMatch $seconds $v.shutdown.deadline) -}}
{{- $needed := add (trimSuffix "s" $v.shutdown.delay) (trimSuffix "s" $v.shutdown.deadline) -}}
{{- if le (int $v.terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds: has to be more than shutdown.delay and shutdown.deadline together (%d s), or running checks are cut off" $needed) -}}
{{- end -}}
{{- end -}}
{{- end -}}
