use serde_json::json;

use super::*;
use crate::user_pool::{Clients, UserPool};

mod account_tests;
mod telemetry_tests;

/// Reads a configuration from flags, environment variables and the text of `.env`.
fn read_from(flags: &[&str], environment: &[(&str, &str)], dot_env: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    if !dot_env.is_empty() {
        std::fs::write(directory.path().join(".env"), dot_env).unwrap();
    }
    let args = flags.iter().map(Into::into);
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    match read(args, environment, directory.path()) {
        Ok(Invocation::Serve(config) | Invocation::CheckConfig(config, _)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

const MINIMAL: [(&str, &str); 2] = [("COGNITO_USER_POOL_ID", "eu-west-1_Abc"), ("COGNITO_CLIENT_ID", "client")];

fn with(flags: &[&str]) -> Result<Config, String> {
    read_from(flags, &MINIMAL, "")
}

fn pool(config: &Config) -> &UserPool {
    &config.policy.pools.first().unwrap().0
}

#[test]
fn three_settings_are_enough() {
    let config = read_from(
        &[],
        &[],
        "AWS_REGION=eu-west-1\nCOGNITO_USER_POOL_ID=eu-west-1_Abc\nCOGNITO_CLIENT_ID=\"a1\" # mine\n",
    )
    .unwrap();
    assert_eq!(pool(&config).id.as_str(), "eu-west-1_Abc");
    assert_eq!(pool(&config).clients, Clients::Only(vec!["a1".parse().unwrap()]));
    assert!(config.warnings.is_empty());
    assert_eq!(
        (config.limits.leeway, config.token_cache_capacity, config.token_cache_max_bytes),
        (30, 50_000, 64 << 20)
    );
    assert_eq!(config.grpc.listen, ["127.0.0.1:9191".parse().unwrap()]);
    assert_eq!((config.grpc.max_message_bytes, config.grpc.socket_mode), (16 << 20, 0o660));
}

#[test]
fn flags_take_precedence_over_the_environment_and_the_environment_over_dot_env() {
    let dot_env = "COGNITO_CLIENT_ID=file\nCOGNITO_AUTHZ_REALM=file\nexport COGNITO_AUTHZ_LEEWAY='10s'\n";
    let environment = [
        MINIMAL[0],
        ("COGNITO_CLIENT_ID", "a, b,,c"),
        ("COGNITO_AUTHZ_REALM", "environment"),
        ("COGNITO_AUTHZ_ACCOUNT_API", "false"),
    ];
    let config = read_from(&["--realm", "flag"], &environment, dot_env).unwrap();
    assert_eq!(config.realm.as_str(), "flag");
    assert_eq!(pool(&config).clients, Clients::Only(["a", "b", "c"].map(|id| id.parse().unwrap()).into()));
    assert_eq!(config.limits.leeway, 10);
    let sources = ["realm", "client-id", "leeway", "region"].map(|id| config.effective[id]["source"].as_str().unwrap());
    assert_eq!(
        sources,
        [
            "the flag",
            "the environment variable COGNITO_CLIENT_ID",
            "COGNITO_AUTHZ_LEEWAY, line 3 of .env",
            "the default"
        ]
    );
    let config = read_from(&["--client-id", "d", "--client-id", "e"], &environment, dot_env).unwrap();
    assert_eq!(pool(&config).clients, Clients::Only(["d", "e"].map(|id| id.parse().unwrap()).into()));
}

#[test]
fn lines_of_other_programs_in_dot_env_are_ignored() {
    let dot_env = "# comment\nTHIS is not\n{\"json\": [\nCOGNITO_USER_POOL_ID=eu-west-1_First\nKEY=\"-----BEGIN\nlines\n-----END\"\n  COGNITO_USER_POOL_ID = eu-west-1_Last\nCOGNITO_CLIENT_ID=a\nCOGNITO_AUTHZ_REALM=\n";
    let config = read_from(&[], &[], dot_env).unwrap();
    assert_eq!(pool(&config).id.as_str(), "eu-west-1_Last");
    assert_eq!(config.realm.as_str(), "api", "an empty value counts as unset");
}

#[test]
fn each_error_is_one_sentence_with_the_option_and_the_source() {
    for (flags, environment, dot_env, expected) in [
        (
            &[][..],
            &[][..],
            "",
            "--user-pool-id: no user pool is configured; set COGNITO_USER_POOL_ID (--user-pool-id), COGNITO_CLIENT_ID \
             (--client-id; `any` accepts every app client) and optionally AWS_REGION (--region), in the environment or in \
             a file .env in the working directory (there is none), or define `pools` in a policy file (--config)",
        ),
        (
            &[],
            &[],
            "COGNITO_AUTHZ_REALM=api",
            "--user-pool-id: no user pool is configured; set COGNITO_USER_POOL_ID (--user-pool-id), COGNITO_CLIENT_ID \
             (--client-id; `any` accepts every app client) and optionally AWS_REGION (--region), in the environment or in \
             a file .env in the working directory (the one there sets none), or",
        ),
        (
            &[],
            &MINIMAL[..1],
            "",
            "--client-id: an app client's id, or `any`, is required (no flag, no COGNITO_CLIENT_ID in the environment or .env)",
        ),
        (&[], &[MINIMAL[0], ("COGNITO_CLIENT_ID", "")], "", "--client-id: an app client's id, or `any`, is required"),
        (
            &[],
            &[MINIMAL[0], ("COGNITO_CLIENT_ID", " , ")],
            "",
            "--client-id: the list is empty (from the environment variable COGNITO_CLIENT_ID)",
        ),
        (
            &[],
            &[MINIMAL[0], MINIMAL[1], ("COGNITO_AUTHZ_GRPC_LISTEN", ",")],
            "",
            "--grpc-listen: the list is empty (from the environment variable COGNITO_AUTHZ_GRPC_LISTEN)",
        ),
        (&["--client-id", ""], &MINIMAL, "", "--client-id: "),
        (
            &["--client-id", "any", "--client-id", "a"],
            &MINIMAL,
            "",
            "--client-id: `any` accepts every app client; remove it or the other app clients (from the flag)",
        ),
        (
            &[],
            &[("COGNITO_USER_POOL_ID", "nonsense")],
            "",
            "--user-pool-id: not a user pool id such as eu-west-1_AbC123xyz: \"nonsense\" (from the environment variable COGNITO_USER_POOL_ID)",
        ),
        (
            &[],
            &[],
            "\nCOGNITO_USER_POOL_ID=nonsense",
            "--user-pool-id: not a user pool id such as eu-west-1_AbC123xyz: \"nonsense\" (from COGNITO_USER_POOL_ID, line 2 of .env)",
        ),
        (
            &[],
            &[],
            "COGNITO_USER_POOL_ID='open",
            "line 1 of .env, which sets COGNITO_USER_POOL_ID, is malformed: the value has an opening quote without",
        ),
        (
            &[],
            &MINIMAL,
            "\nCOGNITO_CLIENT_SECRET",
            "line 2 of .env, which sets COGNITO_CLIENT_SECRET, is malformed: no `=`",
        ),
        (&[], &MINIMAL, "A=\0", ".env is not text in UTF-8: it contains NUL bytes"),
        (
            &["--region", "eu-west-2"],
            &MINIMAL,
            "",
            "--region: \"eu-west-2\" is not the region of the user pool eu-west-1_Abc (from the flag)",
        ),
        (&["--nonsense"], &MINIMAL, "", "--nonsense is not an option (from the command line)"),
        (&["--leway", "5s"], &MINIMAL, "", "--leway is not an option; did you mean --leeway? (from the command line)"),
        (&["--leway=5s"], &MINIMAL, "", "--leway is not an option; did you mean --leeway? (from the command line)"),
        (&["explain", "--heder", "a: b"], &MINIMAL, "", "--heder is not an option; did you mean --header? (from"),
        (&["--hlep"], &MINIMAL, "", "--hlep is not an option; did you mean --help? (from the command line)"),
        (&["--envoy"], &MINIMAL, "", "--envoy is not an option of serve; it is one of doctor (from the command line)"),
        (
            &["check-config", "--json"],
            &MINIMAL,
            "",
            "--json is not an option of check-config; it is one of explain, doctor, revoke, revocations, log-level (from",
        ),
        (&["nonsense"], &MINIMAL, "", "\"nonsense\" is not a command (from the command line)"),
        (&["check"], &MINIMAL, "", "\"check\" is not a command; did you mean check-config? (from the command line)"),
        (&["chekc-config"], &MINIMAL, "", "\"chekc-config\" is not a command; did you mean check-config? (from"),
        (&["revocations", "lst"], &MINIMAL, "", "\"lst\" is not a command; did you mean list? (from the command line)"),
        (
            &["--log-level", "wran"],
            &MINIMAL,
            "",
            "--log-level: not one of error, warn, info, debug, trace: \"wran\"; did you mean warn? (from the flag)",
        ),
        (&["--leeway", "90s"], &MINIMAL, "", "--leeway: more than 60s: \"90s\" (from the flag)"),
        (&["--leeway=1500ms"], &MINIMAL, "", "--leeway: not a whole number of seconds: \"1500ms\" (from the flag)"),
        (&["--leeway", "5"], &MINIMAL, "", "--leeway: not a duration such as 250ms, 30s or 1h: \"5\" (from the flag)"),
        (
            &["--leeway", "1s", "--leeway", "2s"],
            &MINIMAL,
            "",
            "the argument '--leeway <DURATION>' cannot be used multiple times (from the command line)",
        ),
        (&["--leeway"], &MINIMAL, "", "--leeway: a value is missing (from the flag)"),
        (
            &["--jwks-refresh-interval", "51m"],
            &MINIMAL,
            "",
            "--jwks-refresh-interval: not between 1s and 50m: \"51m\" (from the flag)",
        ),
        (
            &["--token-use", "refresh"],
            &MINIMAL,
            "",
            "--token-use: not one of access, id, any: \"refresh\" (from the flag)",
        ),
        (&["--header-prefix", "x-envoy-a-"], &MINIMAL, "", "--header-prefix: takes over headers of Envoy"),
        (&["--realm", "a\"b"], &MINIMAL, "", "--realm: not 1 to 128 printable"),
        (
            &["--grpc-listen", "9191"],
            &MINIMAL,
            "",
            "--grpc-listen: not host:port, [::]:port or unix:/path (or one of these after tls: or mtls:): \"9191\" (from the flag)",
        ),
        (
            &["--grpc-socket-mode", "888"],
            &MINIMAL,
            "",
            "--grpc-socket-mode: not a file mode such as 0660: \"888\" (from the flag)",
        ),
        (&["--grpc-threads", "0"], &MINIMAL, "", "--grpc-threads: 0 is not in 1..=256: \"0\" (from the flag)"),
        (
            &["--grpc-max-message-bytes", "16M"],
            &MINIMAL,
            "",
            "--grpc-max-message-bytes: not a number of bytes such as 65536, 64KiB or 16MiB: \"16M\" (from the flag)",
        ),
        (
            &["--grpc-max-message-bytes", "1"],
            &MINIMAL,
            "",
            "--grpc-max-message-bytes: not between 1KiB and 1GiB (from the flag)",
        ),
        (
            &["--jwks-url", "http://keys.test/"],
            &MINIMAL,
            "",
            "--jwks-url: plain http to a host other than loopback needs --allow-insecure-endpoints (from the flag)",
        ),
        (
            &["--jwks-url", "ftp://127.0.0.1/"],
            &MINIMAL,
            "",
            "--jwks-url: not an https:// URL: \"ftp://127.0.0.1/\" (from the flag)",
        ),
        (
            &["--jwks-url", "https://a:b@keys.test/"],
            &MINIMAL,
            "",
            "--jwks-url: the URL contains a user name, a password or a fragment (from the flag)",
        ),
        (
            &["--jwks-file", "/nonexistent"],
            &MINIMAL,
            "",
            "--jwks-file: /nonexistent cannot be read: No such file or directory",
        ),
        (&["--issuer", ""], &MINIMAL, "", "--issuer: "),
        (
            &["--allow-insecure-endpoints=maybe"],
            &MINIMAL,
            "",
            "--allow-insecure-endpoints: not one of true, false: \"maybe\" (from the flag)",
        ),
        (
            &[],
            &[MINIMAL[0], MINIMAL[1], ("COGNITO_ENDPOINT", "http://cognito.test")],
            "",
            "--cognito-endpoint: plain http to a host other than loopback needs --allow-insecure-endpoints (from the environment variable COGNITO_ENDPOINT)",
        ),
        (
            &[],
            &[MINIMAL[0], MINIMAL[1], ("COGNITO_AUTHZ_LOG_LEVEL", "loud")],
            "",
            "--log-level: not one of error, warn, info, debug, trace: \"loud\" (from the environment variable COGNITO_AUTHZ_LOG_LEVEL)",
        ),
    ] {
        let error = read_from(flags, environment, dot_env).err().unwrap_or_else(|| panic!("{flags:?} passes"));
        assert!(error.starts_with(expected), "{flags:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn an_option_of_the_pool_of_the_flags_needs_that_pool() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    std::fs::write(&path, "pools:\n  a: {user_pool_id: eu-west-1_A, client_ids: one}\n").unwrap();
    let read = |more: &[&str], variables: &[(&str, &str)]| {
        read_from(&[&["--config", path.to_str().unwrap()], more].concat(), variables, "").map(|_| ())
    };
    let refused = |option: &str, source: &str| {
        Err(format!("{option}: describes the pool of --user-pool-id, which is unset (from {source})"))
    };
    assert_eq!(read(&[], &[]), Ok(()));
    assert_eq!(read(&[], &[("AWS_REGION", "us-east-1")]), Ok(()), "platforms set this variable");
    for (option, value) in [
        ("--client-id", "two"),
        ("--cognito-endpoint", "https://cognito.example"),
        ("--issuer", "https://issuer.example"),
        ("--jwks-url", "https://keys.example/jwks.json"),
        ("--jwks-file", "/keys.json"),
        ("--token-use", "id"),
        ("--region", "us-east-1"),
    ] {
        assert_eq!(read(&[option, value], &[]), refused(option, "the flag"), "{option}");
    }
    let variable = "COGNITO_AUTHZ_TOKEN_USE";
    assert_eq!(read(&[], &[(variable, "id")]), refused("--token-use", &format!("the environment variable {variable}")));
}

#[test]
fn plain_http_needs_a_loopback_host_or_an_option() {
    for url in
        ["https://keys.test/a", "http://127.0.0.1:9/a", "http://127.9.9.9/a", "http://[::1]/a", "http://localhost/a"]
    {
        assert_eq!(pool(&with(&["--jwks-url", url]).unwrap()).jwks_urls[0].as_str(), url);
    }
    assert!(with(&["--jwks-url", "http://localhost.evil.test/"]).is_err());
    assert!(with(&["--jwks-url", "http://keys.test/", "--allow-insecure-endpoints"]).is_ok());
    assert!(with(&["--jwks-url", "http://keys.test/", "--allow-insecure-endpoints=false"]).is_err());
}

#[test]
fn another_aws_region_is_a_warning() {
    let environment = [MINIMAL[0], MINIMAL[1], ("AWS_REGION", "us-east-1")];
    let config = read_from(&[], &environment, "").unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("the environment variable AWS_REGION"));
    assert!(pool(&config).issuers[0].contains("eu-west-1"));
}

#[test]
fn endpoint_issuers_and_jwks_url_are_independent() {
    let pool_of = |flags: &[&str]| pool(&with(flags).unwrap()).clone();
    let emulator = pool_of(&["--cognito-endpoint", "http://127.0.0.1:4566"]);
    assert_eq!(emulator.jwks_urls[0].as_str(), "http://127.0.0.1:4566/eu-west-1_Abc/.well-known/jwks.json");
    assert_eq!(emulator.issuers.len(), 2);
    let own = pool_of(&[
        "--cognito-endpoint",
        "http://127.0.0.1:4566",
        "--jwks-url",
        "https://k.test/j",
        "--issuer",
        "a",
        "--issuer",
        "b",
    ]);
    assert_eq!((own.jwks_urls[0].as_str(), own.issuers), ("https://k.test/j", vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn the_jwks_file_is_read_at_startup() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &str| -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let good = path("good", &crate::token_builder::jwks(&[crate::token_builder::SigningKey::shared()]));
    assert_eq!(with(&["--jwks-file", good.to_str().unwrap()]).unwrap().policy.pools[0].1.len(), 1);
    let bad = path("bad", "{\"keys\":[]}");
    let error = with(&["--jwks-file", bad.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("no usable key in the set (from the flag)"), "{error}");
}

#[test]
fn each_command_is_parsed() {
    let read = |args: &[&str]| {
        read(
            args.iter().map(Into::into),
            MINIMAL.iter().map(|(n, v)| (n.into(), v.into())),
            &std::env::temp_dir().join("nowhere"),
        )
    };
    assert!(matches!(read(&["serve", "--realm", "x"]), Ok(Invocation::Serve(config)) if config.realm.as_str() == "x"));
    assert!(matches!(read(&["check-config"]), Ok(Invocation::CheckConfig(_, Online(false)))));
    assert!(
        matches!(read(&["healthcheck"]), Ok(Invocation::Healthcheck(options)) if options.admin.port() == Some(9190))
    );
    assert!(matches!(read(&["--version"]), Ok(Invocation::Print(text)) if text.starts_with("cognito-authz ")));
    let Ok(Invocation::Print(help)) = read(&["--help"]) else { panic!("no help") };
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        "User pool:",
        "Keys:",
        "Check:",
        "gRPC:",
        "Account API:",
        "Operations:",
        "[env: COGNITO_USER_POOL_ID]",
        "[env: COGNITO_AUTHZ_LEEWAY]",
    ] {
        assert!(help.contains(text), "{text} is not in\n{help}");
    }
    assert!(!help.contains("eu-west-1_Abc"), "values of the environment are not shown as defaults");
}

#[test]
fn the_store_of_revocations_needs_what_its_url_says() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let ca = ["--revocation-ca-file", path];
    let password = ["--revocation-password-file", path];
    let error = |url: &str, more: &[&str]| with(&[&["--revocation-url", url], more].concat()).unwrap_err();
    assert!(error("redis://u@h", &[]).contains("needs --revocation-password-file"));
    assert!(error("redis-sentinel://h/m", &ca).contains("no effect unless"));
    assert!(error("redis://u:secret@h", &[]).contains("use --revocation-password-file"));
    for url in ["redis://u:secret@h", "redis://u:se/secret@h", "redis://u:secret@h@", "redis:u:secret@h", "u:secret@h"]
    {
        assert!(!error(url, &[]).contains("secret@"), "{}", error(url, &[]));
    }
    let endpoint = with(&["--jwks-url", "https://u:secret@h:port"]).unwrap_err();
    assert!(endpoint.contains("\"https://[redacted]@h:port\""), "{endpoint}");
    assert!(error("redis://u@h", &password).contains("is empty"));
    std::fs::write(path, "secret\n-----BEGIN CERTIFICATE-----\n").unwrap();
    let config = with(&[&["--revocation-url", "rediss-cluster://u@h,i"], &ca[..], &password].concat()).unwrap();
    let shown = format!("{:?}", config.revocation);
    assert!(shown.contains("rediss-cluster://h:6379,i:6379") && !shown.contains("u@"), "{shown}");
}
