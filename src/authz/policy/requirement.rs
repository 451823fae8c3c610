//! Requirements of a policy for a verified token.
//!
//! [`Requirements::check`] is pure: it depends on the claims, the named segments of the path, and the time.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::super::cache::Verified;
use super::super::denial::Denial;
use super::super::token::claims::{TokenUse, WantedIndex};
use crate::clock::UnixTime;
use crate::user_pool::{ClientId, PoolIndex};

/// Requirements of a policy. A token must meet all of them. The default requires nothing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Requirements {
    /// Kind of token. `None` for every kind that its pool accepts.
    pub(crate) token_use: Option<TokenUse>,
    /// Pools, of which one must have issued the token. Empty for every pool.
    pub(crate) pools: Vec<PoolIndex>,
    /// App clients, to one of which the token must have been issued. Empty for every client that its pool accepts.
    pub(crate) clients: Vec<ClientId>,
    /// Claim `aud`, and its accepted values, of which the token must have one (resource-bound access tokens).
    pub(crate) audiences: Option<(WantedIndex, Vec<Box<str>>)>,
    /// Audience of a protected resource.
    pub(crate) resource: Option<ResourceAudience>,
    /// Claim `act`, if tokens with it are denied: another party acts on behalf of the subject (RFC 8693 section 4.1).
    pub(crate) no_actor: Option<WantedIndex>,
    /// Scopes (`scope`).
    pub(crate) scopes: AnyAll,
    /// Groups (`cognito:groups`).
    pub(crate) groups: AnyAll,
    /// Requirements for other claims.
    pub(crate) claims: Vec<ClaimRequirement>,
    /// Claim `auth_time`, and the maximum number of seconds since then (RFC 9470).
    pub(crate) max_auth_age: Option<(WantedIndex, i64)>,
    /// Claim `acr`, and its accepted values.
    pub(crate) acr: Option<(WantedIndex, Vec<Box<str>>)>,
    /// Claim `amr`, and the required authentication methods.
    pub(crate) amr: Option<(WantedIndex, AnyAll)>,
}

/// Audience that a token must be issued for (RFC 8707 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceAudience {
    /// Claim `aud`.
    pub(crate) claim: WantedIndex,
    /// Forms of the resource's identifier, of which `aud` must contain one.
    pub(crate) identifiers: Vec<Box<str>>,
    /// `true` if access tokens without `aud`, and ID tokens, are accepted. Cognito writes `aud` only into the access tokens
    /// of clients that name a resource.
    pub(crate) if_present: bool,
}

impl ResourceAudience {
    fn is_met(&self, caller: &Verified) -> bool {
        match caller.claims.extra().get(self.claim) {
            // `aud` of an ID token is the app client.
            _ if self.if_present && caller.claims.token_use() == TokenUse::Id => true,
            None => self.if_present,
            Some(aud) => contains_one(aud, &self.identifiers),
        }
    }
}

/// Names of which a token must have at least one, and names of which it must have all. An empty list requires nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnyAll {
    /// At least one of these is required.
    pub(crate) any: Vec<Box<str>>,
    /// All of these are required.
    pub(crate) all: Vec<Box<str>>,
}

impl AnyAll {
    /// `true` if nothing is required.
    pub(crate) fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }

    /// All names, those of `all` first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().chain(&self.any).map(|name| &**name)
    }

    fn is_met(&self, has: impl Fn(&str) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(|name| has(name))) && self.all.iter().all(|name| has(name))
    }
}

/// Requirement for one claim.
#[derive(Debug, PartialEq)]
pub(crate) struct ClaimRequirement {
    /// Name in the metadata, such as `claims.custom:tenant`.
    pub(crate) label: Box<str>,
    /// Claim to test.
    pub(crate) claim: WantedIndex,
    /// Test of its value.
    pub(crate) test: ClaimTest,
}

/// Test of a claim. Values of different types are never equal: the text `"5"` is not the number 5.
#[derive(Debug, PartialEq)]
pub(crate) enum ClaimTest {
    /// Equals this value.
    Equals(Operand),
    /// Equals one of these values.
    OneOf(Vec<Operand>),
    /// Is a list with this member.
    Contains(Operand),
}

/// Value to compare a claim with.
#[derive(Debug, PartialEq)]
pub(crate) enum Operand {
    /// Text, number or boolean.
    Value(Value),
    /// Segment of the request's path that has this name in the route's pattern.
    Segment(Box<str>),
}

/// Requirement that a token does not meet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unmet<'r> {
    /// Reason for denying the request.
    pub(crate) denial: Denial,
    /// Name of the requirement in the policy file.
    pub(crate) requirement: &'r str,
}

impl Requirements {
    /// `true` if a token can be denied for this reason.
    pub(crate) fn can_deny(&self, denial: Denial) -> bool {
        match denial {
            Denial::ClaimMismatch => {
                self.token_use.is_some()
                    || !self.pools.is_empty()
                    || !self.clients.is_empty()
                    || self.audiences.is_some()
                    || self.resource.is_some()
                    || self.no_actor.is_some()
                    || !self.claims.is_empty()
            }
            Denial::InsufficientScope => !self.scopes.is_empty(),
            Denial::InsufficientGroup => !self.groups.is_empty(),
            Denial::AuthTooOld => self.max_auth_age.is_some() || self.acr.is_some() || self.amr.is_some(),
            _ => false,
        }
    }

    /// Checks the requirements at the Unix time `now`. `segment` returns the segment of the path that has a name in the
    /// route's pattern.
    ///
    /// # Errors
    /// The first requirement that is not met, in the order of the fields.
    pub(crate) fn check<'r, 's>(
        &'r self,
        caller: &Verified,
        segment: impl Fn(&str) -> Option<&'s str>,
        now: UnixTime,
    ) -> Result<(), Unmet<'r>> {
        let claims = &caller.claims;
        let extra = claims.extra();
        let require = |is_met: bool, denial: Denial, requirement: &'r str| {
            if is_met { Ok(()) } else { Err(Unmet { denial, requirement }) }
        };
        let mismatch = |is_met: bool, requirement: &'r str| require(is_met, Denial::ClaimMismatch, requirement);

        mismatch(self.token_use.is_none_or(|token_use| token_use == claims.token_use()), "token_use")?;
        mismatch(self.pools.is_empty() || self.pools.contains(&caller.pool), "pools")?;
        let is_client = |client: &ClientId| client.as_str() == claims.client_id();
        mismatch(self.clients.is_empty() || self.clients.iter().any(is_client), "clients")?;
        if let Some((aud, accepted)) = &self.audiences {
            let is_met = extra.get(*aud).is_some_and(|aud| contains_one(aud, accepted));
            mismatch(is_met, "audiences")?;
        }
        if let Some(resource) = &self.resource {
            mismatch(resource.is_met(caller), "protected_resources.audience")?;
        }
        if let Some(act) = self.no_actor {
            mismatch(extra.get(act).is_none(), "allow_delegated")?;
        }
        let has_scope = |scope: &str| claims.scope().is_some_and(|held| held.split(' ').any(|held| held == scope));
        require(self.scopes.is_met(has_scope), Denial::InsufficientScope, "scopes")?;
        let has_group = |group: &str| claims.groups().any(|held| held == group);
        require(self.groups.is_met(has_group), Denial::InsufficientGroup, "groups")?;
        for claim in &self.claims {
            let is_met = extra.get(claim.claim).is_some_and(|value| claim.test.is_met(value, &segment));
            mismatch(is_met, &claim.label)?;
        }
        if let Some((auth_time, most)) = self.max_auth_age {
            // A token without the claim (client credentials) is not from a sign-in.
            let since = extra.get(auth_time).and_then(whole_seconds);
            let is_met = since.is_some_and(|since| now.saturating_sub(since) <= most);
            require(is_met, Denial::AuthTooOld, "max_auth_age")?;
        }
        if let Some((acr, accepted)) = &self.acr {
            let held = extra.get(*acr).and_then(Value::as_str);
            require(held.is_some_and(|held| accepted.iter().any(|acr| **acr == *held)), Denial::AuthTooOld, "acr")?;
        }
        if let Some((amr, methods)) = &self.amr {
            let held = extra.get(*amr).map(members).unwrap_or_default();
            let has = |method: &str| held.iter().any(|held| held.as_str() == Some(method));
            require(methods.is_met(has), Denial::AuthTooOld, "amr")?;
        }
        Ok(())
    }
}

/// Returns the members of a list. A single value counts as a list of one (`aud`, RFC 7519 section 4.1.3).
fn members(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// `true` if a claim, which is a text or a list, contains one of these texts.
fn contains_one(claim: &Value, accepted: &[Box<str>]) -> bool {
    let is_accepted = |value: &Value| value.as_str().is_some_and(|text| accepted.iter().any(|one| **one == *text));
    members(claim).iter().any(is_accepted)
}

/// Converts a time to whole seconds. Rounds down, as for all times in a token. `None` if it is not a number, or out of range.
fn whole_seconds(time: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be exact")]
    let floored = || time.as_f64().map(f64::floor).filter(|time| is_exact(*time)).map(|time| time as i64);
    time.as_i64().or_else(|| if time.is_f64() { floored() } else { None })
}

/// `true` if `number` is in the range in which every integer has a double of its own: less than 2^53.
pub(crate) fn is_exact(number: f64) -> bool {
    number.abs() < 9_007_199_254_740_992.0
}

/// Compares two numbers by value: 5 equals 5.0. Two integers are compared exactly. A double from 2^53 on equals no number,
/// because it can stand for several integers.
fn same_number(one: &Number, other: &Number) -> bool {
    match (one.is_f64(), other.is_f64()) {
        (false, false) => one == other,
        _ => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => {
                is_exact(one) && is_exact(other) && one.partial_cmp(&other) == Some(Ordering::Equal)
            }
            _ => false,
        },
    }
}

impl ClaimTest {
    fn is_met<'s>(&self, claim: &Value, segment: &impl Fn(&str) -> Option<&'s str>) -> bool {
        match self {
            Self::Equals(operand) => operand.equals(claim, segment),
            Self::OneOf(operands) => operands.iter().any(|operand| operand.equals(claim, segment)),
            Self::Contains(operand) => {
                claim.as_array().is_some_and(|members| members.iter().any(|member| operand.equals(member, segment)))
            }
        }
    }

    /// Names of the path segments that the test uses.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        let operands = match self {
            Self::Equals(operand) | Self::Contains(operand) => std::slice::from_ref(operand),
            Self::OneOf(operands) => operands,
        };
        operands.iter().filter_map(|operand| match operand {
            Operand::Segment(name) => Some(&**name),
            Operand::Value(_) => None,
        })
    }
}

impl Operand {
    fn equals<'s>(&self, claim: &Value, segment: &impl Fn(&str) -> Option<&'s str>) -> bool {
        match self {
            Self::Value(Value::Number(number)) => claim.as_number().is_some_and(|claim| same_number(claim, number)),
            Self::Value(value) => claim == value,
            // If the route has no such segment, for example because Envoy named the policy, the test fails.
            Self::Segment(name) => segment(name).is_some_and(|segment| claim.as_str() == Some(segment)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authz::token::claims::{ClaimPath, WantedClaims};
    use crate::authz::token::tests::{claims_with, shared_key};
    use Denial::{AuthTooOld, ClaimMismatch, InsufficientGroup, InsufficientScope};
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    struct Case {
        wanted: WantedClaims,
        requirements: Requirements,
    }

    impl Case {
        fn new(fill: impl FnOnce(&mut Requirements, &mut dyn FnMut(&str) -> WantedIndex)) -> Self {
            let (mut wanted, mut requirements) = (WantedClaims::default(), Requirements::default());
            fill(&mut requirements, &mut |name| wanted.want(ClaimPath::new([name]).unwrap()));
            Self { wanted, requirements }
        }

        /// Checks a token with these claims against the requirements.
        #[track_caller]
        fn check(&self, changes: &Value, expected: Result<(), (Denial, &str)>) {
            assert_ne!(self.requirements, Requirements::default());
            let claims = claims_with(changes, &self.wanted);
            let caller = Verified::new(claims, 1, 0, Arc::clone(&shared_key()));
            let segment = |name: &str| (name == "tenant").then_some("acme");
            let result = self.requirements.check(&caller, segment, NOW);
            assert_eq!(result.map_err(|unmet| (unmet.denial, unmet.requirement)), expected, "{changes}");
        }
    }

    fn names(list: &[&str]) -> Vec<Box<str>> {
        list.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn kind_of_token_pool_and_client_are_required() {
        let token_use = Case::new(|r, _| r.token_use = Some(TokenUse::Id));
        token_use.check(&json!({}), Err((ClaimMismatch, "token_use")));
        Case::new(|r, _| r.token_use = Some(TokenUse::Access)).check(&json!({}), Ok(()));
        Case::new(|r, _| r.pools = vec![0, 1]).check(&json!({}), Ok(()));
        Case::new(|r, _| r.pools = vec![0]).check(&json!({}), Err((ClaimMismatch, "pools")));
        Case::new(|r, _| r.clients = vec!["c".parse().unwrap()]).check(&json!({}), Ok(()));
        Case::new(|r, _| r.clients = vec!["d".parse().unwrap()]).check(&json!({}), Err((ClaimMismatch, "clients")));
    }

    #[test]
    fn audiences_are_required_and_actors_denied() {
        let audiences = Case::new(|r, want| r.audiences = Some((want("aud"), names(&["https://a", "b"]))));
        audiences.check(&json!({"aud": "https://a"}), Ok(()));
        audiences.check(&json!({"aud": ["x", "b"]}), Ok(()));
        for aud in [json!("ABSENT"), json!("x"), json!([]), json!(["x"]), json!(null), json!("https://a/")] {
            audiences.check(&json!({ "aud": aud }), Err((ClaimMismatch, "audiences")));
        }
        let direct = Case::new(|r, want| r.no_actor = Some(want("act")));
        direct.check(&json!({}), Ok(()));
        direct.check(&json!({"act": {"sub": "agent"}}), Err((ClaimMismatch, "allow_delegated")));
        direct.check(&json!({"act": {}}), Err((ClaimMismatch, "allow_delegated")));
    }

    #[test]
    fn the_audience_of_a_resource_is_judged() {
        const ID: &str = "https://mcp.example/mcp";
        let case = |if_present: bool| {
            Case::new(|r, want| {
                let claim = want("aud");
                r.resource = Some(ResourceAudience { claim, identifiers: names(&[ID]), if_present });
            })
        };
        let (required, if_present) = (case(false), case(true));
        let unmet = Err((ClaimMismatch, "protected_resources.audience"));
        for (aud, met) in [
            (json!(ID), true),
            (json!([ID]), true),
            (json!(["https://other.example", ID]), true),
            (json!("https://mcp.example/mcp/"), false),
            (json!("https://mcp.example"), false),
            (json!("https://MCP.example/mcp"), false),
            (json!(""), false),
            (json!([]), false),
            (json!([[ID]]), false),
            (json!({ "aud": ID }), false),
            (json!(7), false),
            (json!(["https://other.example"]), false),
        ] {
            for case in [&required, &if_present] {
                case.check(&json!({ "aud": aud }), if met { Ok(()) } else { unmet });
            }
        }
        for absent in [json!({}), json!({"aud": null})] {
            required.check(&absent, unmet);
            if_present.check(&absent, Ok(()));
        }
        // `aud` of an ID token is the app client.
        let id = json!({"token_use": "id", "aud": "c"});
        required.check(&id, unmet);
        if_present.check(&id, Ok(()));
    }

    #[test]
    fn scopes_and_groups_are_required() {
        for (any, all, scope, met) in [
            (&["a", "b"][..], &[][..], "b c", true),
            (&["a", "b"], &[], "c", false),
            (&[], &["a", "b"], "b a", true),
            (&[], &["a", "b"], "a", false),
            (&["c"], &["a"], "a c", true),
            (&["c"], &["a"], "a", false),
            (&["a"], &[], "ab", false),
            (&["a"], &[], "A", false),
            (&["a"], &[], "ABSENT", false),
        ] {
            let scopes = Case::new(|r, _| r.scopes = AnyAll { any: names(any), all: names(all) });
            let expected = if met { Ok(()) } else { Err((InsufficientScope, "scopes")) };
            scopes.check(&json!({ "scope": scope }), expected);
            let groups = Case::new(|r, _| r.groups = AnyAll { any: names(any), all: names(all) });
            let held = if scope == "ABSENT" { json!("ABSENT") } else { scope.split(' ').collect() };
            groups.check(&json!({ "cognito:groups": held }), expected.map_err(|_| (InsufficientGroup, "groups")));
        }
    }

    #[test]
    fn claims_are_compared_by_type_and_value() {
        let value = |value: &Value| Operand::Value(value.clone());
        for (test, claim, met) in [
            (ClaimTest::Equals(value(&json!("a"))), json!("a"), true),
            (ClaimTest::Equals(value(&json!("a"))), json!("A"), false),
            (ClaimTest::Equals(value(&json!("a"))), json!(["a"]), false),
            (ClaimTest::Equals(value(&json!("5"))), json!(5), false),
            (ClaimTest::Equals(value(&json!(5))), json!(5), true),
            (ClaimTest::Equals(value(&json!(5))), json!(5.0), true),
            (ClaimTest::Equals(value(&json!(5))), json!("5"), false),
            (ClaimTest::Equals(value(&json!(u64::MAX))), json!(u64::MAX), true),
            // Different integers with the same double.
            (ClaimTest::Equals(value(&json!(9_007_199_254_740_993_u64))), json!(9_007_199_254_740_992_u64), false),
            (ClaimTest::Equals(value(&json!(9_007_199_254_740_993_u64))), json!(9_007_199_254_740_993_u64), true),
            (ClaimTest::Equals(value(&json!(9_007_199_254_740_992_u64))), json!(9_007_199_254_740_992.0), false),
            (ClaimTest::Equals(value(&json!(90_071_992_547_409_u64))), json!(90_071_992_547_409.0), true),
            (ClaimTest::Equals(value(&json!(u64::MAX))), json!(18_446_744_073_709_551_616.0), false),
            (ClaimTest::Equals(value(&json!(i64::MIN))), json!(i64::MIN + 1), false),
            (ClaimTest::Equals(value(&json!(i64::MIN))), json!(i64::MIN), true),
            (ClaimTest::Equals(value(&json!(-1))), json!(u64::MAX), false),
            (ClaimTest::OneOf(vec![value(&json!(9_007_199_254_740_993_u64))]), json!(9_007_199_254_740_994_u64), false),
            (ClaimTest::Contains(value(&json!(9_007_199_254_740_993_u64))), json!([9_007_199_254_740_992_u64]), false),
            (ClaimTest::Equals(value(&json!(1.5))), json!(1.5), true),
            (ClaimTest::Equals(value(&json!(5.0))), json!(5), true),
            (ClaimTest::Equals(value(&json!(0))), json!(-0.0), true),
            (ClaimTest::Equals(value(&json!(true))), json!(true), true),
            (ClaimTest::Equals(value(&json!(true))), json!("true"), false),
            (ClaimTest::Equals(value(&json!(false))), json!("ABSENT"), false),
            (ClaimTest::OneOf(vec![value(&json!("a")), value(&json!(1))]), json!(1), true),
            (ClaimTest::OneOf(vec![value(&json!("a")), value(&json!(1))]), json!("b"), false),
            (ClaimTest::Contains(value(&json!("a"))), json!(["b", "a"]), true),
            (ClaimTest::Contains(value(&json!("a"))), json!(["b"]), false),
            (ClaimTest::Contains(value(&json!("a"))), json!("a"), false),
            (ClaimTest::Contains(value(&json!("a"))), json!({"a": "a"}), false),
            (ClaimTest::Equals(Operand::Segment("tenant".into())), json!("acme"), true),
            (ClaimTest::Equals(Operand::Segment("tenant".into())), json!("acm"), false),
            (ClaimTest::Contains(Operand::Segment("tenant".into())), json!(["x", "acme"]), true),
            (ClaimTest::Equals(Operand::Segment("other".into())), json!("acme"), false),
            (ClaimTest::Equals(Operand::Segment("other".into())), json!(""), false),
        ] {
            let case = Case::new(|r, want| {
                r.claims = vec![ClaimRequirement { label: "claims.x".into(), claim: want("x"), test }];
            });
            case.check(&json!({ "x": claim }), if met { Ok(()) } else { Err((ClaimMismatch, "claims.x")) });
        }
    }

    #[test]
    fn a_recent_and_strong_sign_in_is_required() {
        let recent = Case::new(|r, want| r.max_auth_age = Some((want("auth_time"), 300)));
        for (auth_time, met) in [
            (json!(NOW), true),
            (json!(NOW - 300), true),
            (json!(NOW - 301), false),
            (json!(NOW + 60), true),
            (json!("ABSENT"), false),
            (json!(NOW.to_string()), false),
            (json!(i64::MIN), false),
            // Rounded down, like `exp` and `nbf`.
            (json!(1_799_999_700.9), true),
            (json!(1_799_999_699.9), false),
            (json!(1_800_000_000.0), true),
            (json!(u64::MAX), false),
            (json!(1e300), false),
            (json!(-1e300), false),
        ] {
            recent.check(
                &json!({ "auth_time": auth_time }),
                if met { Ok(()) } else { Err((AuthTooOld, "max_auth_age")) },
            );
        }
        let acr = Case::new(|r, want| r.acr = Some((want("acr"), names(&["mfa", "phr"]))));
        acr.check(&json!({"acr": "phr"}), Ok(()));
        acr.check(&json!({"acr": "pwd"}), Err((AuthTooOld, "acr")));
        acr.check(&json!({}), Err((AuthTooOld, "acr")));
        let amr = Case::new(|r, want| {
            r.amr = Some((want("amr"), AnyAll { any: names(&["otp", "hwk"]), all: names(&["pwd"]) }));
        });
        amr.check(&json!({"amr": ["pwd", "otp"]}), Ok(()));
        amr.check(&json!({"amr": ["otp"]}), Err((AuthTooOld, "amr")));
        amr.check(&json!({"amr": "pwd"}), Err((AuthTooOld, "amr")));
        amr.check(&json!({}), Err((AuthTooOld, "amr")));
    }

    #[test]
    fn the_first_unmet_requirement_is_reported() {
        let case = Case::new(|r, _| {
            r.scopes = AnyAll { any: names(&["a"]), all: Vec::new() };
            r.groups = AnyAll { any: names(&["g"]), all: Vec::new() };
        });
        case.check(&json!({}), Err((InsufficientScope, "scopes")));
        case.check(&json!({"scope": "a"}), Err((InsufficientGroup, "groups")));
        case.check(&json!({"scope": "a", "cognito:groups": ["g"]}), Ok(()));
    }
}
