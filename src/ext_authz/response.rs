//! Encodes answers as Envoy's `CheckResponse` (`envoy/service/auth/v3/external_auth.proto`), with the gRPC prefix.
//!
//! Envoy allows a request if `status` is unset or its code is 0, so every refusal has a status with another code. A
//! pass is written directly in wire format, because it is encoded for every cached check. Refusals use the generated
//! types. Tests decode both with prost.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::BoolValue;
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use prost::bytes::Bytes;

use super::unary;
use crate::authz::Answer;
use crate::authz::answer::{MetadataValue, Pass, Refusal};
use crate::authz::headers::Mutation;

/// Encodes an answer as a `CheckResponse` with the gRPC prefix.
pub fn write(answer: &Answer<'_>) -> Bytes {
    match answer {
        Answer::Pass(pass) => match pass.prepared() {
            Some(prepared) => prepared.answer(|| write_pass(answer, pass)),
            None => write_pass(answer, pass),
        },
        Answer::Refusal(refusal) => write_refusal(answer, refusal),
    }
}

fn write_pass(answer: &Answer<'_>, pass: &Pass<'_>) -> Bytes {
    unary::frame(1024, |out| {
        message(out, 1, |_| {}); // status: google.rpc.Status, code 0 = OK
        // OkHttpResponse: headers = 2, headers_to_remove = 5, query_parameters_to_remove = 8
        message(out, 3, |ok| {
            pass.mutations(&mut |mutation: Mutation<'_>| match mutation {
                Mutation::Set(name, value) => set_header(ok, name, value, HeaderAppendAction::OverwriteIfExistsOrAdd),
                Mutation::Append(name, value) => set_header(ok, name, value, HeaderAppendAction::AppendIfExistsOrAdd),
                Mutation::Remove(name) => text(ok, 5, name),
            });
            for name in pass.query_parameters_to_remove() {
                text(ok, 8, name);
            }
        });
        message(out, 4, |metadata| write_metadata(metadata, answer));
    })
}

fn write_refusal(answer: &Answer<'_>, refusal: &Refusal<'_>) -> Bytes {
    let response = CheckResponse {
        status: Some(Status {
            code: grpc_code(refusal.denial().status()),
            message: refusal.denial().reason().to_owned(),
            details: Vec::new(),
        }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(refusal.status()) }),
            headers: refusal.headers().iter().map(|(name, value)| header(name, value)).collect(),
            body: refusal.body(),
        })),
        dynamic_metadata: None, // written below, by the same code as for a pass
    };
    unary::frame(response.encoded_len() + 256, |out| {
        response.encode_raw(out);
        message(out, 4, |metadata| write_metadata(metadata, answer));
    })
}

/// A `HeaderValueOption` of an `OkHttpResponse`: `header` = 1, `append` = 2, `append_action` = 3.
fn set_header(out: &mut Vec<u8>, name: &str, value: &str, action: HeaderAppendAction) {
    message(out, 2, |option| {
        message(option, 1, |header| {
            text(header, 1, name);
            text(header, 2, value);
        });
        // `append` is for Envoy versions without `append_action`. To append, only `append` is set: the action APPEND is
        // 0, the default, which is not encoded, and Envoy reads a default action without `append` as "overwrite". Envoy
        // appends the value to the same header line after a comma; values are already encoded for that.
        match action {
            HeaderAppendAction::OverwriteIfExistsOrAdd => {
                option.extend_from_slice(&[2 << 3 | 2, 0, 3 << 3, action as u8]);
            }
            _ => option.extend_from_slice(&[2 << 3 | 2, 2, 1 << 3, 1]),
        }
    });
}

/// Returns the gRPC code for an HTTP status, with the mapping that Envoy uses for gRPC callers. Never 0.
fn grpc_code(status: u16) -> i32 {
    match status {
        401 => 16, // UNAUTHENTICATED
        503 => 14, // UNAVAILABLE
        _ => 7,    // PERMISSION_DENIED
    }
}

#[expect(deprecated, reason = "Envoy versions without `append_action` read `append`")]
fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..Default::default() }),
        append: Some(BoolValue { value: false }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..Default::default()
    }
}

/// `dynamic_metadata`: a `google.protobuf.Struct`, whose `fields` = 1 are map entries of key = 1 and value = 2.
fn write_metadata(out: &mut Vec<u8>, answer: &Answer<'_>) {
    answer.metadata(&mut |name, value| {
        message(out, 1, |entry| {
            text(entry, 1, name);
            message(entry, 2, |out| write_value(out, value));
        });
    });
}

/// A `google.protobuf.Value`: `number_value` = 2, `string_value` = 3, `list_value` = 6 with `values` = 1.
fn write_value(out: &mut Vec<u8>, value: MetadataValue<'_, '_>) {
    match value {
        MetadataValue::Text(value) => text(out, 3, value),
        MetadataValue::Time(seconds) => {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 seconds")]
            let number = seconds as f64;
            out.push(2 << 3 | 1);
            out.extend_from_slice(&number.to_le_bytes());
        }
        MetadataValue::Texts(values) => message(out, 6, |list| {
            for value in values {
                message(list, 1, |out| text(out, 3, value));
            }
        }),
    }
}

/// Writes a text field.
fn text(out: &mut Vec<u8>, number: u8, value: &str) {
    message(out, number, |out| out.extend_from_slice(value.as_bytes()));
}

/// Writes a length-delimited field. The length precedes the content but is known only after it. One byte is reserved
/// for it; longer content, which is rare, is moved up to make space.
fn message(out: &mut Vec<u8>, number: u8, content: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[number << 3 | 2, 0]);
    let start = out.len();
    content(out);
    let length = out.len() - start;
    if let (Ok(short @ ..0x80), Some(place)) = (u8::try_from(length), out.get_mut(start - 1)) {
        *place = short;
        return;
    }
    let mut varint = Vec::with_capacity(10);
    prost::encoding::encode_varint(length as u64, &mut varint);
    out.splice(start - 1..start, varint);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::denial::ChallengeDetails;
    use crate::authz::headers::{ClaimHeader, ListEncoding};
    use crate::authz::token::tests::{claims, shared_key};
    use crate::authz::{
        Allowed, Caller, Challenge, Claims, Denial, Header, Identity, OwnedHeaders, Policy, RequestContext, Verified,
    };
    use envoy_types::pb::google::protobuf::Value;
    use envoy_types::pb::google::protobuf::value::Kind;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn default_policy() -> Policy {
        Policy { name: "default".into(), ..Policy::default() }
    }

    /// A written refusal, decoded.
    fn refuse(denial: Denial, policy: Option<&Policy>, requirement: Option<&str>) -> CheckResponse {
        let realm = "api".parse().unwrap();
        let bytes = write(&Answer::Refusal(Refusal::new(denial, policy.ok_or("default"), requirement, &realm)));
        CheckResponse::decode(&bytes[5..]).unwrap()
    }

    /// A written pass, decoded.
    fn pass(
        owned: &OwnedHeaders,
        identity: Identity,
        claims: Option<Claims>,
        policy: &Policy,
        headers: &[Header<'_>],
    ) -> CheckResponse {
        let verified = |claims| Arc::new(Verified::new(claims, 0, 0, shared_key()));
        let allowed =
            Allowed { policy, token: claims.map(verified), identity: Arc::new(identity.into()), shadow: None };
        let request = RequestContext { headers: headers.to_vec(), ..RequestContext::default() };
        let bytes = write(&Answer::Pass(Pass::new(&allowed, owned, Some(&request))));
        let response = CheckResponse::decode(&bytes[5..]).unwrap();
        assert_eq!(response.encoded_len() + 5, bytes.len(), "prost would encode the same fields");
        response
    }

    /// A decoded response: status code, headers set, headers removed, metadata.
    fn allow(
        claims: Claims,
        headers: &[&str],
    ) -> (i32, BTreeMap<String, String>, Vec<String>, BTreeMap<String, Value>) {
        let headers: Vec<_> = headers.iter().map(|name| Header { name: name.as_bytes(), value: b"forged" }).collect();
        let (owned, policy) = (OwnedHeaders::new("x-auth-".parse().unwrap()), default_policy());
        let caller = Caller { claims: &claims, token: "" };
        let identity = Identity::new(&owned, Some(caller), &[]).unwrap();
        let response = pass(&owned, identity, Some(claims), &policy, &headers);
        let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("not allowed") };
        let mut set = BTreeMap::new();
        for option in ok.headers {
            #[expect(deprecated, reason = "set for Envoy versions without `append_action`")]
            let append = option.append;
            assert_eq!(append, Some(BoolValue { value: false }));
            assert_eq!(option.append_action, HeaderAppendAction::OverwriteIfExistsOrAdd as i32);
            let header = option.header.unwrap();
            assert!(set.insert(header.key, header.value).is_none(), "set twice");
        }
        for (position, name) in ok.headers_to_remove.iter().enumerate() {
            assert!(!set.contains_key(&name.to_lowercase()), "{name} is set and removed");
            assert!(
                !ok.headers_to_remove[..position].iter().any(|other| other.eq_ignore_ascii_case(name)),
                "{name} twice"
            );
        }
        let metadata = response.dynamic_metadata.unwrap().fields.into_iter().collect();
        (response.status.unwrap().code, set, ok.headers_to_remove, metadata)
    }

    fn names<T>(map: &BTreeMap<String, T>) -> Vec<&str> {
        map.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_pass_sets_or_removes_every_owned_header() {
        let full = claims(
            &json!({"sub": "s", "username": "zoë", "scope": "a b", "cognito:groups": ["x,y", "z"], "exp": 1234}),
        );
        let expires = full.expires();
        let (code, set, removed, metadata) = allow(full, &["x-auth-sub", "accept"]);
        assert_eq!(code, 0);
        let expected = [
            ("client-id", "c"),
            ("groups", "x%2Cy,z"),
            ("scope", "a b"),
            ("sub", "s"),
            ("token-use", "access"),
            ("username", "zo%C3%AB"),
        ];
        assert_eq!(set, expected.map(|(name, value)| (format!("x-auth-{name}"), value.to_owned())).into());
        assert_eq!(removed, ["x-auth-email"]);
        assert_eq!(
            names(&metadata),
            ["client_id", "decision", "exp", "groups", "policy", "scope", "sub", "token_use", "username"]
        );
        let text = |value: &str| Value { kind: Some(Kind::StringValue(value.into())) };
        assert_eq!(metadata["username"], text("zoë"));
        assert_eq!(metadata["decision"], text("allow"));
        assert_eq!(metadata["exp"].kind, Some(Kind::NumberValue(f64::from(u32::try_from(expires).unwrap()))));
        let Some(Kind::ListValue(groups)) = &metadata["groups"].kind else { panic!("not a list") };
        assert_eq!(groups.values, [text("x,y"), text("z")]);

        let machine = claims(&json!({"sub": "m", "exp": 1, "username": "ABSENT"}));
        let (_, set, removed, metadata) = allow(machine, &[]);
        assert_eq!(names(&set), ["x-auth-client-id", "x-auth-sub", "x-auth-token-use"]);
        assert_eq!(removed, ["x-auth-username", "x-auth-scope", "x-auth-groups", "x-auth-email"]);
        assert_eq!(names(&metadata), ["client_id", "decision", "exp", "policy", "sub", "token_use"]);
    }

    #[test]
    fn lookalikes_are_removed_once() {
        let claims = claims(&json!({"sub": "s"}));
        let sent = [
            "x_auth_sub",
            "X_AUTH_SUB",
            "x-auth-role",
            "x.auth.groups",
            "X-Auth-Sub",
            "x-auth-email",
            "cookie",
            "x_auth_sub",
        ];
        let (_, _, removed, _) = allow(claims, &sent);
        for (name, times) in [
            ("x_auth_sub", 1),
            ("x-auth-role", 1),
            ("x.auth.groups", 1),
            ("x-auth-email", 1),
            ("cookie", 0),
            ("x-auth-sub", 0),
        ] {
            assert_eq!(removed.iter().filter(|removed| removed.eq_ignore_ascii_case(name)).count(), times, "{name}");
        }
    }

    #[test]
    fn claims_of_any_length_are_encoded_correctly() {
        for length in [1, 90, 127, 128, 300, 5000] {
            let claims = claims(&json!({"sub": "s".repeat(length), "cognito:groups": vec!["g"; length / 10 + 1]}));
            let (_, set, _, metadata) = allow(claims, &[]);
            assert_eq!(set["x-auth-sub"].len(), length);
            assert_eq!(metadata["sub"].kind, Some(Kind::StringValue("s".repeat(length))));
        }
    }

    #[test]
    fn a_denial_is_never_encoded_as_an_allow() {
        for &denial in Denial::ALL {
            let response = refuse(denial, Some(&default_policy()), None);
            let status = response.status.unwrap();
            assert!([7, 14, 16].contains(&status.code), "{denial:?}");
            let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else {
                panic!("{denial:?} is no denial")
            };
            assert_eq!(denied.status.unwrap().code, i32::from(denial.status()));
            let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
            assert_eq!(body, json!({"error": denial.error(), "reason": denial.reason(), "message": denial.message()}));
            let headers: BTreeMap<_, _> =
                denied.headers.into_iter().filter_map(|option| option.header).map(|h| (h.key, h.value)).collect();
            assert_eq!(
                (headers["content-type"].as_str(), headers["cache-control"].as_str()),
                ("application/json", "no-store")
            );
            assert_eq!(headers.contains_key("www-authenticate"), denial.challenge() != Challenge::None);
            assert_eq!(headers.get("retry-after").map(String::as_str), (denial.status() == 503).then_some("5"));
            let metadata = response.dynamic_metadata.unwrap().fields;
            let members: Vec<_> =
                metadata.keys().cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
            assert_eq!(members, ["decision", "policy", "reason"], "no field comes from the token");
        }
    }

    #[test]
    fn challenges_follow_their_rfcs() {
        let plain = default_policy();
        let detailed = Policy {
            challenge: ChallengeDetails {
                scope: "a b/c".into(),
                max_age: Some(300),
                acr_values: "mfa".into(),
                resource_metadata: Some("https://api.example/.well-known/oauth-protected-resource".into()),
            },
            ..default_policy()
        };
        let challenge = |denial, policy: Option<&Policy>| {
            let response = refuse(denial, policy, Some("x"));
            let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else { panic!("no denial") };
            let headers = denied.headers.into_iter().filter_map(|option| option.header);
            let values = headers.filter(|header| header.key == "www-authenticate").map(|header| header.value);
            let values: Vec<String> = values.collect();
            assert!(values.len() < 2, "{values:?}");
            values.into_iter().next()
        };
        let metadata = ", resource_metadata=\"https://api.example/.well-known/oauth-protected-resource\"";
        for (denial, rest, details) in [
            (Denial::MissingCredential, "", ""),
            (Denial::Expired, ", error=\"invalid_token\", error_description=\"The token has expired.\"", ""),
            (
                Denial::MultipleCredentials,
                ", error=\"invalid_request\", error_description=\"More than one credential was sent.\"",
                "",
            ),
            (
                Denial::InsufficientScope,
                ", error=\"insufficient_scope\", error_description=\"The token lacks a scope that is needed here.\"",
                ", scope=\"a b/c\"",
            ),
            (
                Denial::AuthTooOld,
                ", error=\"insufficient_user_authentication\", error_description=\"A more recent or a stronger sign-in is needed here.\"",
                ", acr_values=\"mfa\", max_age=\"300\"",
            ),
        ] {
            let expected = format!("Bearer realm=\"api\"{rest}");
            assert_eq!(challenge(denial, None).as_ref(), Some(&expected));
            assert_eq!(challenge(denial, Some(&plain)).as_ref(), Some(&expected));
            assert_eq!(challenge(denial, Some(&detailed)), Some(format!("{expected}{details}{metadata}")));
        }
        for denial in [Denial::KeysUnavailable, Denial::InsufficientGroup, Denial::UnsafePath] {
            assert_eq!(challenge(denial, Some(&detailed)), None);
        }
    }

    #[test]
    fn a_denial_names_the_requirement_that_was_not_met() {
        let response = refuse(Denial::ClaimMismatch, Some(&default_policy()), Some("claims.custom:tenant"));
        let metadata = response.dynamic_metadata.unwrap().fields;
        assert_eq!(metadata["requirement"].kind, Some(Kind::StringValue("claims.custom:tenant".into())));
    }

    #[test]
    fn a_header_with_several_values_replaces_that_of_the_client() {
        let mut owned = OwnedHeaders::new("x-auth-".parse().unwrap());
        owned.add_claim(&"x-role".parse().unwrap(), ClaimHeader { claim: 0, list: ListEncoding::Repeated });
        let mut identity = Identity::default();
        for role in ["a", "b", "c"] {
            identity.put(7, |out| out.push_str(role));
        }
        let response = pass(&owned, identity, None, &default_policy(), &[]);
        let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("not allowed") };
        #[expect(deprecated, reason = "set for Envoy versions without `append_action`")]
        let set = ok.headers.iter().map(|h| (h.append.unwrap().value, h.append_action()));
        let (overwrite, append) = (HeaderAppendAction::OverwriteIfExistsOrAdd, HeaderAppendAction::AppendIfExistsOrAdd);
        let expected = [(false, overwrite), (true, append), (true, append)];
        assert_eq!(set.collect::<Vec<_>>(), expected);
        assert_eq!(ok.headers_to_remove.len(), 7, "the request has no caller");
        let metadata = response.dynamic_metadata.unwrap().fields;
        assert_eq!(metadata.len(), 2, "decision and policy");
    }
}
