//! One member of a token's JSON, of whatever type it is written in.
//!
//! Pure, and believes nothing: it only says whether a member has the type that a check asks for.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::denial::Denial;

/// A claim of any type: what a member is worth is decided by the check that reads it, not by the parser, because
/// the first *check* that fails names the reason.
#[derive(Default)]
pub(super) enum Claim<'t> {
    #[default]
    Absent,
    Text(Cow<'t, str>),
    Number(f64),
    Bool(bool),
    Texts(Vec<Cow<'t, str>>),
    /// `null`, an object, an array with anything but texts: no claim that we read is one of these.
    Other,
}

impl<'t> Claim<'t> {
    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A text; an empty one counts as absent.
    pub(super) fn text(&'t self) -> Result<Option<&'t str>, Denial> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) => Ok(Some(&**text).filter(|text| !text.is_empty())),
            _ => Err(Denial::MalformedToken),
        }
    }

    pub(super) fn required_text(&'t self) -> Result<&'t str, Denial> {
        self.text()?.ok_or(Denial::MissingClaim)
    }

    /// Texts, of which there may be none.
    pub(super) fn texts(&'t self) -> Result<&'t [Cow<'t, str>], Denial> {
        match self {
            Self::Absent => Ok(&[]),
            Self::Texts(texts) => Ok(texts),
            _ => Err(Denial::MalformedToken),
        }
    }

    /// One text or several (`aud`, RFC 7519 section 4.1.3).
    pub(super) fn required_texts(&'t self) -> Result<Vec<&'t str>, Denial> {
        let texts = match self {
            Self::Texts(texts) => texts.iter().map(|text| &**text).filter(|text| !text.is_empty()).collect(),
            _ => vec![self.required_text()?],
        };
        if texts.is_empty() { Err(Denial::MissingClaim) } else { Ok(texts) }
    }

    /// A number, fractions cut off towards the past.
    pub(super) fn number(&self) -> Result<Option<i64>, Denial> {
        match self {
            Self::Absent => Ok(None),
            // The cast saturates; a NaN or an infinity does not come out of JSON, but would not be a time.
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            Self::Number(number) if number.is_finite() => Ok(Some(number.floor() as i64)),
            _ => Err(Denial::MalformedToken),
        }
    }

    /// `email_verified` is a boolean in Cognito's ID tokens; federated pools are seen to pass on the text.
    pub(super) fn is_true(&self) -> Result<bool, Denial> {
        match self {
            Self::Absent => Ok(false),
            Self::Bool(value) => Ok(*value),
            Self::Text(text) => Ok(text == "true"),
            _ => Err(Denial::MalformedToken),
        }
    }
}

impl<'de: 't, 't> Deserialize<'de> for Claim<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimVisitor)
    }
}

struct ClaimVisitor;

impl<'de> Visitor<'de> for ClaimVisitor {
    type Value = Claim<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Claim<'de>, E> {
        Ok(Claim::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Claim<'de>, E> {
        Ok(Claim::Text(Cow::Owned(text.to_owned())))
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and no date lies beyond")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and no date lies beyond")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Claim<'de>, E> {
        Ok(Claim::Bool(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Claim<'de>, E> {
        Ok(Claim::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claim<'de>, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Claim::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Claim<'de>, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(element) = elements.next_element()? {
            match (element, &mut texts) {
                (Claim::Text(text), Some(texts)) => texts.push(text),
                _ => texts = None,
            }
        }
        Ok(texts.map_or(Claim::Other, Claim::Texts))
    }
}
