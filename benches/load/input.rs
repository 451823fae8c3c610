//! What the generator sends: tokens, and checks that carry them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use envoy_types::pb::envoy::config::core::v3::address::Address as AnyAddress;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Peer;
use envoy_types::pb::google::protobuf::Timestamp;
use prost::Message;

use crate::request::check_request;
use crate::token::{SigningKey, TokenBuilder, jwks, unix_now};

/// Number of distinct tokens in the usual load.
const TOKENS: usize = 10_000;
/// Number of distinct tokens with many groups.
const GROUP_TOKENS: usize = 1_000;
/// Groups of an ordinary token, and of one with many.
const FEW_GROUPS: usize = 2;
const MANY_GROUPS: usize = 200;
/// Life of the tokens in seconds.
const LIFE: i64 = 6 * 3600;

/// The input that all parts share.
pub(crate) struct Input {
    directory: PathBuf,
    /// File with one check for each token.
    pub(crate) checks: PathBuf,
    /// File with the tokens, one a line.
    pub(crate) tokens: PathBuf,
    bytes: [usize; 2],
}

impl Input {
    /// Signs the tokens and writes the files.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let (checks, file) = (directory.join("checks"), directory.join("tokens"));
        let tokens = sign(0..TOKENS, FEW_GROUPS);
        write_checks(&checks, &tokens)?;
        fs::write(&file, tokens.join("\n"))?;
        let first = &tokens[0];
        let input =
            Self { directory: directory.to_owned(), checks, tokens: file, bytes: [first.len(), check(first).len()] };
        fs::write(input.keys(), jwks(&[SigningKey::shared()]))?;
        Ok(input)
    }

    /// File with the key set.
    pub(crate) fn keys(&self) -> PathBuf {
        self.directory.join("jwks.json")
    }

    /// Writes checks with tokens that have 200 groups.
    pub(crate) fn with_many_groups(&self) -> Result<PathBuf> {
        let path = self.directory.join("many-groups");
        write_checks(&path, &sign(0..GROUP_TOKENS, MANY_GROUPS))?;
        Ok(path)
    }

    /// Writes checks with the tokens of these numbers. Those of the usual load are the first 10,000.
    pub(crate) fn with_tokens(&self, numbers: Range<usize>) -> Result<PathBuf> {
        let path = self.more_checks();
        write_checks(&path, &sign(numbers, FEW_GROUPS))?;
        Ok(path)
    }

    /// File that [`Self::with_tokens`] has written last.
    pub(crate) fn more_checks(&self) -> PathBuf {
        self.directory.join("more-checks")
    }

    /// Writes one token with the signature of another.
    pub(crate) fn with_foreign_signature(&self) -> Result<PathBuf> {
        let tokens = fs::read_to_string(&self.tokens)?;
        let parts: Vec<_> = tokens.lines().take(2).filter_map(|token| token.rsplit_once('.')).collect();
        let path = self.directory.join("foreign-signature");
        fs::write(&path, format!("{}.{}", parts[0].0, parts[1].1))?;
        Ok(path)
    }

    /// Sizes of the input.
    pub(crate) fn describe(&self) -> String {
        let [token, check] = self.bytes;
        format!(
            "Input: {TOKENS} distinct tokens of {token} bytes (RS256, 2048 bits), each in a check of {check} bytes."
        )
    }
}

/// Returns a check with a token, encoded: a typical request of a browser, with the addresses and the time that Envoy adds.
fn check(token: &str) -> Vec<u8> {
    let peer = |address: &str, port| {
        let specifier = Some(PortSpecifier::PortValue(port));
        let socket = SocketAddress { address: address.into(), port_specifier: specifier, ..Default::default() };
        Peer { address: Some(Address { address: Some(AnyAddress::SocketAddress(socket)) }), ..Default::default() }
    };
    let mut check = check_request(token);
    if let Some(attributes) = &mut check.attributes {
        attributes.source = Some(peer("10.42.3.17", 51_234));
        attributes.destination = Some(peer("10.42.0.9", 8443));
        if let Some(request) = &mut attributes.request {
            request.time = Some(Timestamp { seconds: unix_now(), nanos: 0 });
            if let Some(http) = &mut request.http {
                http.id = "12880938501234567890".into();
                http.path = "/v1/orders/7f3c?expand=items&limit=50".into();
                (http.scheme, http.protocol) = ("https".into(), "HTTP/2".into());
            }
        }
    }
    check.encode_to_vec()
}

/// Writes checks as gRPC frames them: an uncompressed message after its length.
fn write_checks(path: &Path, tokens: &[String]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for token in tokens {
        let message = check(token);
        file.write_all(&[0])?;
        file.write_all(&u32::try_from(message.len())?.to_be_bytes())?;
        file.write_all(&message)?;
    }
    file.flush()?;
    Ok(())
}

/// Signs the tokens of these numbers, on all cores.
fn sign(numbers: Range<usize>, groups: usize) -> Vec<String> {
    let key = SigningKey::shared();
    let numbers: Vec<usize> = numbers.collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = numbers.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let sign = |share: &[usize]| -> Vec<String> {
            share.iter().map(|number| builder(*number, groups).sign(key)).collect()
        };
        let shares: Vec<_> = numbers.chunks(share).map(|share| scope.spawn(move || sign(share))).collect();
        shares.into_iter().flat_map(|share| share.join().unwrap_or_default()).collect()
    })
}

/// Access token as Cognito's: the user, the session and the token have ids of their own.
fn builder(number: usize, groups: usize) -> TokenBuilder {
    let id = |kind: u8| format!("{number:08x}-{kind:04x}-4c55-9a80-0d1f5d2f0b11");
    let groups: Vec<String> = match groups {
        FEW_GROUPS => ["admins", "editors"].map(str::to_owned).into(),
        count => (1..count).map(|group| format!("group-{group}")).chain(["editors".to_owned()]).collect(),
    };
    TokenBuilder::access()
        .claim("sub", id(1))
        .claim("username", id(1))
        .claim("cognito:groups", groups)
        .claim("version", 2)
        .claim("scope", "openid profile email api/orders.read")
        .claim("origin_jti", id(2))
        .claim("event_id", id(3))
        .claim("jti", id(4))
        .expires_in(LIFE)
}
