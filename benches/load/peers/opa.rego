# The check of the benchmark in Rego: what cognito-authz does with its default policy, and the six headers that it adds.
package cognito

default allow := false

allow := {"allowed": true, "headers": headers}

claims := payload if {
	[scheme, token] := split(input.attributes.request.http.headers.authorization, " ")
	lower(scheme) == "bearer"
	[is_valid, _, payload] := io.jwt.decode_verify(token, {"cert": data.keys, "alg": "RS256", "iss": data.issuer})
	is_valid
	payload.token_use == "access"
	payload.client_id == data.client
}

headers := {
	"x-auth-sub": claims.sub,
	"x-auth-username": claims.username,
	"x-auth-client-id": claims.client_id,
	"x-auth-scope": claims.scope,
	"x-auth-groups": concat(",", claims["cognito:groups"]),
	"x-auth-token-use": claims.token_use,
}
