//! What a policy asks of a caller whose token is good.
//!
//! Pure: claims, captured path segments and the time in, the first requirement that is not met out. Start from
//! [`Requirements::judge`].

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::cache::Verified;
use super::claims::{TokenUse, UnixTime};
use super::denial::Denial;
use super::extra_claims::WantedIndex;
use crate::user_pool::{ClientId, PoolIndex};

/// The requirements of a policy; each has to be met.
#[derive(Debug, Default)]
pub struct Requirements {
    /// The kind of token.
    pub token_use: Option<TokenUse>,
    /// Pools, one of which has to have issued it; none is every pool.
    pub pools: Vec<PoolIndex>,
    /// App clients, one of which it has to have been issued to; none is every client that its pool accepts.
    pub clients: Vec<ClientId>,
    /// Values of `aud`, one of which it has to carry (resource-bound access tokens).
    pub audiences: Option<(WantedIndex, Vec<Box<str>>)>,
    /// `act`, where a token that somebody else uses for its subject is refused (RFC 8693 section 4.1).
    pub no_actor: Option<WantedIndex>,
    /// Scopes.
    pub scopes: AnyAll,
    /// Groups (`cognito:groups`).
    pub groups: AnyAll,
    /// Other claims.
    pub claims: Vec<ClaimRequirement>,
    /// `auth_time`, and the most seconds that may have passed since (RFC 9470).
    pub max_auth_age: Option<(WantedIndex, i64)>,
    /// `acr`, and the values of which it has to be one.
    pub acr: Option<(WantedIndex, Vec<Box<str>>)>,
    /// `amr`, and the methods that have to be among its members.
    pub amr: Option<(WantedIndex, AnyAll)>,
}

/// Names of which one has to be there, and names of which all have to be. An empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnyAll {
    /// One of these.
    pub any: Vec<Box<str>>,
    /// Each of these.
    pub all: Vec<Box<str>>,
}

impl AnyAll {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }

    /// Every name, the needed ones first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().chain(&self.any).map(|name| &**name)
    }

    fn is_met(&self, has: impl Fn(&str) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(|name| has(name))) && self.all.iter().all(|name| has(name))
    }
}

/// What one claim has to be.
#[derive(Debug, PartialEq)]
pub struct ClaimRequirement {
    /// Its name in metadata: `claims.custom:tenant`.
    pub label: Box<str>,
    /// The claim.
    pub claim: WantedIndex,
    /// The test.
    pub test: ClaimTest,
}

/// How a claim is compared. Types count: the text `"5"` is not the number 5.
#[derive(Debug, PartialEq)]
pub enum ClaimTest {
    /// It is this.
    Equals(Operand),
    /// It is one of these.
    OneOf(Vec<Operand>),
    /// It is a list with this among its members.
    Contains(Operand),
}

/// What a claim is compared with.
#[derive(Debug, PartialEq)]
pub enum Operand {
    /// A text, number or boolean.
    Value(Value),
    /// The segment of the request's path that the route's pattern gives this name.
    Segment(Box<str>),
}

/// The requirement that is not met.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmet<'r> {
    /// What it means.
    pub denial: Denial,
    /// Its name, as the policy file calls it.
    pub requirement: &'r str,
}

impl Requirements {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        let Self { token_use, pools, clients, audiences, no_actor, scopes, groups, claims, max_auth_age, acr, amr } =
            self;
        token_use.is_none()
            && pools.is_empty()
            && clients.is_empty()
            && audiences.is_none()
            && no_actor.is_none()
            && scopes.is_empty()
            && groups.is_empty()
            && claims.is_empty()
            && max_auth_age.is_none()
            && acr.is_none()
            && amr.is_none()
    }

    /// Judges a caller at the time `now`. `segment` gives the path's segments by the names of the route's pattern.
    ///
    /// # Errors
    /// The first requirement that is not met, in the order of the fields.
    pub fn judge<'r, 's>(
        &'r self,
        caller: &Verified,
        segment: impl Fn(&str) -> Option<&'s str>,
        now: UnixTime,
    ) -> Result<(), Unmet<'r>> {
        let claims = &caller.claims;
        let extra = claims.extra();
        let ask = |is_met: bool, denial: Denial, requirement: &'r str| {
            if is_met { Ok(()) } else { Err(Unmet { denial, requirement }) }
        };
        let mismatch = |is_met: bool, requirement: &'r str| ask(is_met, Denial::ClaimMismatch, requirement);

        mismatch(self.token_use.is_none_or(|token_use| token_use == claims.token_use()), "token_use")?;
        mismatch(self.pools.is_empty() || self.pools.contains(&caller.pool), "pools")?;
        let is_client = |client: &ClientId| client.as_str() == claims.client_id();
        mismatch(self.clients.is_empty() || self.clients.iter().any(is_client), "clients")?;
        if let Some((aud, accepted)) = &self.audiences {
            let is_accepted =
                |value: &Value| value.as_str().is_some_and(|text| accepted.iter().any(|aud| **aud == *text));
            let is_met = extra.get(*aud).is_some_and(|aud| members(aud).iter().any(is_accepted));
            mismatch(is_met, "audiences")?;
        }
        if let Some(act) = self.no_actor {
            mismatch(extra.get(act).is_none(), "allow_delegated")?;
        }
        let has_scope = |scope: &str| claims.scope().is_some_and(|held| held.split(' ').any(|held| held == scope));
        ask(self.scopes.is_met(has_scope), Denial::InsufficientScope, "scopes")?;
        let has_group = |group: &str| claims.groups().any(|held| held == group);
        ask(self.groups.is_met(has_group), Denial::InsufficientGroup, "groups")?;
        for claim in &self.claims {
            let is_met = extra.get(claim.claim).is_some_and(|value| claim.test.is_met(value, &segment));
            mismatch(is_met, &claim.label)?;
        }
        if let Some((auth_time, most)) = self.max_auth_age {
            // Without the claim (client credentials) nobody has signed in at all.
            let since = extra.get(auth_time).and_then(whole_seconds);
            let is_met = since.is_some_and(|since| now.saturating_sub(since) <= most);
            ask(is_met, Denial::AuthTooOld, "max_auth_age")?;
        }
        if let Some((acr, accepted)) = &self.acr {
            let held = extra.get(*acr).and_then(Value::as_str);
            ask(held.is_some_and(|held| accepted.iter().any(|acr| **acr == *held)), Denial::AuthTooOld, "acr")?;
        }
        if let Some((amr, methods)) = &self.amr {
            let held = extra.get(*amr).map(members).unwrap_or_default();
            let has = |method: &str| held.iter().any(|held| held.as_str() == Some(method));
            ask(methods.is_met(has), Denial::AuthTooOld, "amr")?;
        }
        Ok(())
    }
}

/// The members of a list; a single value is a list of one (`aud`, RFC 7519 section 4.1.3).
fn members(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// A time in whole seconds, floored as every other time of a token. `None` if it is no time or out of range.
fn whole_seconds(time: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be exact")]
    let floored = || time.as_f64().map(f64::floor).filter(|time| is_exact(*time)).map(|time| time as i64);
    time.as_i64().or_else(|| if time.is_f64() { floored() } else { None })
}

/// `true` if no other integer has the same double. From 2^53 on, neighbours share one.
pub(crate) fn is_exact(number: f64) -> bool {
    number.abs() < 9_007_199_254_740_992.0
}

/// Compares two numbers by value: 5 equals 5.0. Integers are compared as integers. A double equals nothing from 2^53 on,
/// because it may stand for several integers.
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

    /// The segments that are compared with.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
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
            // A segment that the route has not, as when Envoy chose the policy by name, equals nothing.
            Self::Segment(name) => segment(name).is_some_and(|segment| claim.as_str() == Some(segment)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authz::extra_claims::{ClaimPath, WantedClaims};
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

        /// The one place that judges a token with these claims.
        #[track_caller]
        fn check(&self, changes: &Value, expected: Result<(), (Denial, &str)>) {
            assert!(!self.requirements.is_empty());
            let claims = claims_with(changes, &self.wanted);
            let caller = Verified { claims, pool: 1, stamp: 0, key: Arc::clone(&shared_key()) };
            let segment = |name: &str| (name == "tenant").then_some("acme");
            let result = self.requirements.judge(&caller, segment, NOW);
            assert_eq!(result.map_err(|unmet| (unmet.denial, unmet.requirement)), expected, "{changes}");
        }
    }

    fn names(list: &[&str]) -> Vec<Box<str>> {
        list.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn token_pool_and_client() {
        let token_use = Case::new(|r, _| r.token_use = Some(TokenUse::Id));
        token_use.check(&json!({}), Err((ClaimMismatch, "token_use")));
        Case::new(|r, _| r.token_use = Some(TokenUse::Access)).check(&json!({}), Ok(()));
        Case::new(|r, _| r.pools = vec![0, 1]).check(&json!({}), Ok(()));
        Case::new(|r, _| r.pools = vec![0]).check(&json!({}), Err((ClaimMismatch, "pools")));
        Case::new(|r, _| r.clients = vec!["c".parse().unwrap()]).check(&json!({}), Ok(()));
        Case::new(|r, _| r.clients = vec!["d".parse().unwrap()]).check(&json!({}), Err((ClaimMismatch, "clients")));
    }

    #[test]
    fn audiences_and_actors() {
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
    fn scopes_and_groups() {
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
    fn claims_are_compared_with_their_types() {
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
            // Neighbours that one float stands for.
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
    fn how_and_when_somebody_signed_in() {
        let recent = Case::new(|r, want| r.max_auth_age = Some((want("auth_time"), 300)));
        for (auth_time, met) in [
            (json!(NOW), true),
            (json!(NOW - 300), true),
            (json!(NOW - 301), false),
            (json!(NOW + 60), true),
            (json!("ABSENT"), false),
            (json!(NOW.to_string()), false),
            (json!(i64::MIN), false),
            // Floored, as `exp` and `nbf` are.
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
    fn the_first_that_is_not_met_is_named() {
        let case = Case::new(|r, _| {
            r.scopes = AnyAll { any: names(&["a"]), all: Vec::new() };
            r.groups = AnyAll { any: names(&["g"]), all: Vec::new() };
        });
        case.check(&json!({}), Err((InsufficientScope, "scopes")));
        case.check(&json!({"scope": "a"}), Err((InsufficientGroup, "groups")));
        case.check(&json!({"scope": "a", "cognito:groups": ["g"]}), Ok(()));
    }
}
