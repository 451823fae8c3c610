//! Tests of tokens: form, header, issuer, signature. They verify tokens that are really signed.

use super::*;
use crate::authz::token::claims::ClaimPath;
use crate::jwks::KeySet;
use crate::token_builder::{POOL, SigningKey, TokenBuilder, jwks, sign_raw, unix_now};
use proptest::prelude::*;

/// The test key, as parsed from a key set.
pub(crate) fn shared_key() -> std::sync::Arc<VerifyingKey> {
    let set = KeySet::parse(jwks(&[SigningKey::shared()]).as_bytes(), &KeySet::default()).unwrap();
    std::sync::Arc::clone(set.get("c2hhcmVk+/=").unwrap())
}

fn pools() -> UserPools {
    let pool = UserPool::new("default", POOL.parse().unwrap(), Clients::Any, AcceptedUse::Any).unwrap();
    UserPools::new(vec![pool]).unwrap()
}

/// Checks and verifies a token, as the authorizer does.
fn verify(token: &str) -> Result<Claims, Denial> {
    verify_keeping(token, &WantedClaims::default())
}

fn verify_keeping(token: &str, wanted: &WantedClaims) -> Result<Claims, Denial> {
    let pools = pools();
    let keys = KeySet::parse(jwks(&[SigningKey::shared()]).as_bytes(), &KeySet::default()).unwrap();
    let decoded = Decoded::new(token)?;
    let unverified = decoded.read()?;
    let candidate = check_claims(&unverified, &pools, unix_now(), 0)?;
    let key = keys.get(candidate.kid()).ok_or(Denial::UnknownKid)?;
    candidate.verify(key, wanted)
}

/// Longest life of a token, in seconds.
pub(crate) const MAX_LIFE: i64 = 24 * 3600;

/// Runs the checks that need no key, for a check.
fn check_claims<'t>(
    token: &'t UnverifiedToken<'t>,
    pools: &'t UserPools,
    now: UnixTime,
    leeway: i64,
) -> Result<CandidateToken<'t>, Denial> {
    token.check(pools, Purpose::Check, now, TimeLimits { leeway, max_life: MAX_LIFE }, &mut Step::Form)
}

/// Signs a token with this payload, and checks and verifies it at `now`.
pub(crate) fn verify_payload(payload: &str, pool: UserPool, now: UnixTime, leeway: i64) -> Result<Claims, Denial> {
    let token = sign_raw(r#"{"alg":"RS256","kid":"c2hhcmVk+/="}"#, payload, SigningKey::shared());
    let pools = UserPools::new(vec![pool]).unwrap();
    let decoded = Decoded::new(&token)?;
    let unverified = decoded.read()?;
    check_claims(&unverified, &pools, now, leeway)?.verify(&shared_key(), &WantedClaims::default())
}

/// Claims of an access token of the client `c` with `changes`, from a token that was signed and verified.
pub(crate) fn claims(changes: &serde_json::Value) -> Claims {
    claims_with(changes, &WantedClaims::default())
}

/// Same as [`claims`], with the `wanted` claims as well.
pub(crate) fn claims_with(changes: &serde_json::Value, wanted: &WantedClaims) -> Claims {
    let mut token = TokenBuilder::access().claim("client_id", "c").claim("scope", "ABSENT");
    for (name, value) in changes.as_object().unwrap() {
        let value = if name == "exp" { (unix_now() + 80_000).into() } else { value.clone() };
        token = token.claim(name, value);
    }
    verify_keeping(&token.sign(SigningKey::shared()), wanted).unwrap()
}

#[test]
fn a_token_is_valid_in_one_form_only() {
    let good = TokenBuilder::access().sign(SigningKey::shared());
    assert!(verify(&good).is_ok());
    let (input, signature) = good.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(flipped));
        assert_eq!(verify(&token).err(), Some(Denial::BadSignature), "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(verify(&good[..length]).is_err(), "cut to {length}");
    }
    for longer in [format!("{good}A"), format!("{good}AAAA"), format!("{good}."), format!("{good} ")] {
        assert!(verify(&longer).is_err(), "{longer}");
    }
}

#[test]
fn a_signature_by_another_key_or_of_other_claims_is_rejected() {
    let other = TokenBuilder::access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other());
    assert_eq!(verify(&other).err(), Some(Denial::BadSignature));
    let (a, b) = (TokenBuilder::access(), TokenBuilder::access().claim("sub", "someone-else"));
    let (a, b) = (a.sign(SigningKey::shared()), b.sign(SigningKey::shared()));
    let mixed = format!("{}.{}", b.rsplit_once('.').unwrap().0, a.rsplit_once('.').unwrap().1);
    assert_eq!(verify(&mixed).err(), Some(Denial::BadSignature));
}

#[test]
fn ambiguous_json_is_malformed() {
    let mut wanted = WantedClaims::default();
    wanted.want(ClaimPath::new(["act"]).unwrap());
    let claims = TokenBuilder::access().sign(SigningKey::shared());
    let claims = URL_SAFE_NO_PAD.decode(claims.split('.').nth(1).unwrap()).unwrap();
    let claims = String::from_utf8(claims).unwrap();
    let header = r#"{"alg":"RS256","kid":"c2hhcmVk+/="}"#;
    let nested = |levels: usize| format!(r#""x":{}{}"#, "[".repeat(levels), "]".repeat(levels));
    for (member, is_good) in [
        (r#""x":"\ud800""#.to_owned(), false),
        (r#""x":"\udc00\ud800""#.to_owned(), false),
        (r#""\ud800":1"#.to_owned(), false),
        (r#""x":1e999"#.to_owned(), false),
        (r#""x":[[{"y":-1e999}]]"#.to_owned(), false),
        (nested(127), false),
        (nested(200), false),
        (r#""x":1,"x":1"#.to_owned(), false),
        (r#""x":1,"\u0078":2"#.to_owned(), false),
        (r#""x":{"y":1,"z":2,"y":3}"#.to_owned(), false),
        (r#""x":[{"":1,"":1}]"#.to_owned(), false),
        (r#""act":1,"act":null"#.to_owned(), false),
        (r#""x":"\ud83d\ude00\u0000""#.to_owned(), true),
        (r#""x":[1e308,-0.0,18446744073709551616,true,null,{}]"#.to_owned(), true),
        (nested(126), true),
        (r#""x":{"y":{"y":{"x":1}}},"y":[{"y":1},{"y":1}]"#.to_owned(), true),
    ] {
        for (header, claims) in [
            (header.to_owned(), claims.replacen('{', &format!("{{{member},"), 1)),
            (header.replacen('{', &format!("{{{member},"), 1), claims.clone()),
        ] {
            let token = sign_raw(&header, &claims, SigningKey::shared());
            for wanted in [&WantedClaims::default(), &wanted] {
                let expected = (!is_good).then_some(Denial::MalformedToken);
                assert_eq!(verify_keeping(&token, wanted).err(), expected, "{member:.40}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_accepted_object_can_be_parsed_as_a_value(parts in prop::collection::vec(prop::sample::select(&JSON_PARTS[..]), 1..12)) {
        let json = format!("{{{}}}", parts.concat());
        if object::<Header<'_>>(&json).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
        }
    }
}

const JSON_PARTS: [&str; 16] = [
    "\"a\":",
    "\"b\":",
    "\"alg\":",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "1e999",
    "1",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"a\":1,",
    "\"b\":{\"a\":1},",
    "null",
    "\"\\x\"",
];

fn segment(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

/// Decodes a token, checks its header and claims, and returns the denial.
fn check(token: &str) -> Option<Denial> {
    let pool = UserPool::new("default", "eu-west-1_T".parse().unwrap(), Clients::Any, AcceptedUse::Any).unwrap();
    let pools = UserPools::new(vec![pool]).unwrap();
    let checked = |decoded: &Decoded<'_>| check_claims(&decoded.read()?, &pools, 100, 0).map(|_| ());
    Decoded::new(token).and_then(|decoded| checked(&decoded)).err()
}

const CLAIMS: &str = r#"{"iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_T","token_use":"access","sub":"s","client_id":"c","iat":100,"exp":200}"#;
const HEADER: &str = r#"{"kid":"k","alg":"RS256"}"#;

#[test]
fn malformed_tokens_are_rejected() {
    let (header, claims) = (segment(HEADER), segment(CLAIMS));
    assert_eq!(check(&format!("{header}.{claims}.AAAA")), None);
    assert_eq!(check(&format!("{header}.{claims}.")), None, "an empty signature fails later, at the step `signature`");
    for token in [
        String::new(),
        format!("{header}.{claims}.AAAA {header}.{claims}.AAAA"),
        format!("{header}.{claims}.\tAAAA"),
        ".".into(),
        "..".into(),
        header.clone(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.AAAA.AAAA"),
        format!("{header}.{claims}.AAAA."),
        format!(".{header}.{claims}.AAAA"),
        format!("{header}..AAAA"),
        format!("{header}=.{claims}.AAAA"),
        format!("{header}.{claims}.AAA="),
        format!("{header}.{claims}.AAB"), // not canonical: unused bits are set
        format!("{header}.{claims}.A"),
        format!("{header}.{claims}.+/+/"),
        format!("{header}.{claims}.AA AA"),
        format!("{header}.{claims}.AA\nAA"),
        format!("{header}.{claims}.\u{e9}\u{e9}"),
        format!("{}.{claims}.AAAA", segment("[]")),
        format!("{}.{claims}.AAAA", segment(r#"["RS256","k"]"#)),
        format!("{}.{claims}.AAAA", segment("null")),
        format!("{}.{claims}.AAAA", segment(&format!("{HEADER}x"))),
        format!("{}.{claims}.AAAA", segment(r#"{"kid":"k","alg":"RS256","alg":"RS256"}"#)),
        format!("{}.{claims}.AAAA", segment(r#"{"kid":"k","kid":"l","alg":"RS256"}"#)),
        format!("{}.{claims}.AAAA", segment(r#"{"kid":"\ud800","alg":"RS256"}"#)),
        format!("{}.{claims}.AAAA", URL_SAFE_NO_PAD.encode(b"{\"kid\":\"k\",\"alg\":\"RS256\",\"x\":\"\xff\"}")),
        format!("{header}.{}.AAAA", segment("{}{}")),
        format!("{header}.{}.AAAA", segment("[]")),
        format!("{header}.{}.AAAA", segment(&CLAIMS.replace("200", "1e999"))),
        format!("{header}.{}.AAAA", segment(&CLAIMS.replace("200", "NaN"))),
        format!("{header}.{}.AAAA", segment(&format!("{}{}", "[".repeat(3000), "]".repeat(3000)))),
        format!("{header}.{}.AAAA", segment(&CLAIMS.replace("\"sub\"", "\"s\\u0075b\":\"t\",\"sub\""))),
    ] {
        assert_eq!(check(&token), Some(Denial::MalformedToken), "{token}");
    }
}

#[test]
fn members_can_be_in_any_order_and_escaped() {
    let header = segment("\t{ \"typ\":\"JWT\", \"\\u0061lg\":\"RS\\u003256\",\n\"kid\":\"k\" } ");
    let claims = segment(&CLAIMS.replace("token_use", "token\\u005fuse").replace("/eu-west", "\\/eu-west"));
    assert_eq!(check(&format!("{header}.{claims}.AAAA")), None);
}

#[test]
fn the_length_is_checked_first() {
    let base = format!("{}.{}.", segment(HEADER), segment(CLAIMS));
    let signature = |total: usize| "A".repeat(total - base.len());
    for (length, expected) in
        [(8_000, None), (MAX_TOKEN_BYTES, None), (MAX_TOKEN_BYTES + 1, Some(Denial::TokenTooLarge))]
    {
        // Base64 of length 1 modulo 4 is not valid. Add spaces to the payload instead.
        let mut token = format!("{base}{}", signature(length));
        if (length - base.len()) % 4 == 1 {
            let claims = segment(&format!("{CLAIMS}  "));
            token = format!("{}.{claims}.", segment(HEADER));
            token.push_str(&"A".repeat(length - token.len()));
        }
        assert_eq!((token.len(), check(&token)), (length, expected));
    }
    assert_eq!(check(&"!".repeat(MAX_TOKEN_BYTES + 1)), Some(Denial::TokenTooLarge));
}

#[test]
fn each_rule_for_the_header() {
    use Denial::{MissingKid, UnsupportedAlgorithm, UnsupportedHeader};
    for (header, expected) in [
        (r#"{"kid":"k","alg":"RS256","typ":"JWT"}"#, None),
        (
            r#"{"kid":"k","alg":"RS256","jku":"https://evil.test/","x5u":"https://evil.test/","x5c":["x"],"jwk":{}}"#,
            None,
        ),
        (r#"{"kid":"k"}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":"none"}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":"rs256"}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":"HS256"}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":"RS512"}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":"PS256"}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":" RS256"}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":""}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":null}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":["RS256"]}"#, Some(UnsupportedAlgorithm)),
        (r#"{"kid":"k","alg":"RS256","crit":["exp"]}"#, Some(UnsupportedHeader)),
        (r#"{"kid":"k","alg":"RS256","crit":[]}"#, Some(UnsupportedHeader)),
        (r#"{"kid":"k","alg":"RS256","crit":null}"#, Some(UnsupportedHeader)),
        (r#"{"kid":"k","alg":"RS256","b64":true}"#, Some(UnsupportedHeader)),
        (r#"{"kid":"k","alg":"RS256","b64":false}"#, Some(UnsupportedHeader)),
        (r#"{"alg":"RS256"}"#, Some(MissingKid)),
        (r#"{"kid":"","alg":"RS256"}"#, Some(MissingKid)),
        (r#"{"kid":7,"alg":"RS256"}"#, Some(MissingKid)),
        (r#"{"kid":null,"alg":"RS256"}"#, Some(MissingKid)),
        (r#"{"alg":"none","crit":[]}"#, Some(UnsupportedAlgorithm)),
        (r#"{"alg":"RS256","crit":[]}"#, Some(UnsupportedHeader)),
    ] {
        assert_eq!(check(&format!("{}.{}.AAAA", segment(header), segment(CLAIMS))), expected, "{header}");
    }
}

#[test]
fn the_issuer_is_compared_byte_for_byte() {
    let header = segment(HEADER);
    for (from, to) in [("_T\"", "_T/\""), ("https", "HTTPS"), ("https", "http"), ("_T\"", "_t\""), ("_T\"", "_T \"")] {
        let claims = segment(&CLAIMS.replacen(from, to, 1));
        assert_eq!(check(&format!("{header}.{claims}.AAAA")), Some(Denial::UnknownIssuer), "{to}");
    }
    let updated = segment(&CLAIMS.replace("//cognito-idp", "//issuer-cognito-idp"));
    assert_eq!(check(&format!("{header}.{updated}.AAAA")), None, "the updated issuer format");
}
