//! Options of the account API, its app client, and sessions in browsers.

use super::*;
use crate::session_cookie::SameSite;

#[test]
fn the_account_api_needs_one_app_client_and_valid_options() {
    const UNNAMED: &str =
        "--account-client-id: the pool default accepts several app clients or `any`; name the app client";
    let account = |flags: &[&str]| with(flags).map(|config| config.account.unwrap().settings);
    let config = account(&[]).unwrap();
    assert_eq!((config.prefix.as_str(), config.client_id.as_str()), ("/auth", "client"));
    assert!(with(&["--account-api=false", "--client-id", "any"]).unwrap().account.is_none());
    let config = account(&["--client-id", "a", "--client-id", "b", "--account-client-id", "b"]).unwrap();
    assert_eq!(config.client_id.as_str(), "b");
    let config = account(&["--client-id", "any", "--account-client-id", "b"]).unwrap();
    assert_eq!(config.client_id.as_str(), "b");
    for (flags, expected) in [
        (&["--client-id", "any", "--account-api"][..], UNNAMED),
        (&["--client-id", "a", "--client-id", "b", "--account-api=true"], UNNAMED),
        (&["--client-id", "a", "--client-id", "b", "--account-listen", "127.0.0.1:0"], UNNAMED),
        (
            &["--account-client-id", "other"],
            "--account-client-id: the pool default does not accept the tokens of the app client other (from the flag)",
        ),
        (&["--account-prefix", "auth"], "--account-prefix: not a path such as /auth: \"auth\" (from the flag)"),
        (&["--account-prefix", "/metrics"], "--account-prefix: a path of the admin port (from the flag)"),
        (&["--account-prefix", "/status"], "--account-prefix: a path of the admin port (from the flag)"),
        (&["--totp-issuer", "a:b"], "--totp-issuer: not a name of at most 64 characters without a colon: \"a:b\""),
        (&["--cors-origins", "*"], "--cors-origins: every origin (*) is not an origin"),
        (&["--limit-user", "15"], "--limit-user: not a rate such as 75/1m: \"15\" (from the flag)"),
        (&["--refresh-flow", "x"], "--refresh-flow: not one of tokens, auth: \"x\" (from the flag)"),
        (&["--cognito-timeout", "11s"], "--cognito-timeout: not between 100ms and 10s: \"11s\" (from the flag)"),
        (&["--account-min-failure-time", "6s"], "--account-min-failure-time: not between 0s and 5s"),
        (
            &["--forward-client-address"],
            "--forward-client-address: Cognito accepts a client address only from an app client with",
        ),
        (&["--client-secret-file", "/nonexistent"], "--client-secret-file: /nonexistent cannot be read"),
    ] {
        let error = account(flags).err().unwrap_or_else(|| panic!("{flags:?} passes"));
        assert!(error.starts_with(expected), "{flags:?}: {error}");
    }
    for (address, warnings) in
        [("127.0.0.1:1", 0), ("[::1]:1", 0), ("localhost:1", 0), ("unix:/a", 0), ("[::]:1", 1), ("a:1", 1)]
    {
        let config = with(&["--admin-listen", address]).unwrap();
        assert_eq!(config.warnings.len(), warnings, "{address}");
        let apart = with(&["--admin-listen", address, "--account-listen", "[::]:2"]).unwrap();
        assert!(apart.warnings.is_empty(), "{address}");
    }
}

/// With several app clients the account API is off, unless something of it is configured.
#[test]
fn the_account_api_is_off_by_default_if_its_app_client_is_ambiguous() {
    const SEVERAL: [&str; 4] = ["--client-id", "a", "--client-id", "b"];
    const OFF: &str = "the account API is off: the pool default accepts several app clients or `any`; name the app client \
                       of the account API with --account-client-id to serve it";
    let several = |more: &[&str]| with(&[&SEVERAL, more].concat());
    let shown = |config: &Config| config.effective["account-api"].clone();

    let one = with(&[]).unwrap();
    assert!(one.account.is_some() && one.notes.is_empty());
    assert_eq!(shown(&one), json!({"value": "true", "source": "the default"}));
    for flags in [&SEVERAL[..], &["--client-id", "any"]] {
        let off = with(flags).unwrap();
        assert!(off.account.is_none() && off.warnings.len() <= 1);
        assert_eq!(off.notes, [OFF]);
        let reason = OFF.trim_start_matches("the account API is off: ");
        assert_eq!(shown(&off), json!({"value": "false", "source": "the default", "reason": reason}));
    }
    let disabled = several(&["--account-api=false", "--account-cookies"]).unwrap();
    assert!(disabled.account.is_none() && disabled.notes.is_empty());
    assert_eq!(shown(&disabled), json!({"value": "false", "source": "the flag"}));

    for configured in [
        &["--account-api"][..],
        &["--account-listen", "127.0.0.1:0"],
        &["--hosted-ui-domain", "auth.example.com"],
        &["--account-cookies"],
        &["--trusted-hops", "0"],
        &["--limit-user", "15/1m"],
    ] {
        let error = several(configured).unwrap_err();
        let said = format!("or disable the API with --account-api=false ({} is set)", configured[0]);
        assert!(error.starts_with("--account-client-id: ") && error.contains(&said), "{error}");
    }
    let secret = ("COGNITO_CLIENT_SECRET", "1exampleclientsecret");
    let error = read_from(&SEVERAL, &[MINIMAL[0], secret], "").unwrap_err();
    assert!(error.contains("(COGNITO_CLIENT_SECRET is set)"), "{error}");
    let variable = ("COGNITO_AUTHZ_ACCOUNT_API", "true");
    assert!(read_from(&SEVERAL, &[MINIMAL[0], variable], "").is_err());
    // Options that checks share with the account API are no options of it.
    assert!(several(&["--realm", "x", "--cognito-endpoint", "https://cognito.test"]).unwrap().account.is_none());
}

#[test]
fn a_file_with_all_pools_names_the_pool_and_client_of_the_account_api() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    let read = |pools: &str, more: &[&str]| {
        std::fs::write(&path, format!("pools:\n{pools}")).unwrap();
        read_from(&[&["--config", path.to_str().unwrap()], more].concat(), &[], "")
    };
    let a = "  a: {user_pool_id: eu-west-1_A, client_ids: one}\n";
    let two_clients = "  a: {user_pool_id: eu-west-1_A, client_ids: [one, two]}\n";
    let two_pools = format!("{a}  b: {{user_pool_id: eu-west-1_B, client_ids: one}}\n");
    assert_eq!(&*read(a, &[]).unwrap().account.unwrap().settings.pool, "a");
    for (pools, expected) in [
        (
            two_clients,
            "--config: the pool a accepts several app clients or `any`; name the app client of the account API in `account`",
        ),
        (&*two_pools, "--config: the file has several pools; name the one of the account API in `account`"),
    ] {
        let off = read(pools, &[]).unwrap();
        assert!(off.account.is_none() && off.notes[0].starts_with("the account API is off: "), "{:?}", off.notes);
        let error = read(pools, &["--account-api"]).err().unwrap();
        assert!(error.starts_with(expected), "{error}");
        assert!(read(pools, &["--account-api=false"]).is_ok());
    }
}

#[test]
fn a_client_secret_is_read_and_never_shown() {
    const SECRET: &str = "1exampleclientsecret0123456789abcdefghijklmnopqrstu";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let flags = ["--client-secret-file", file.to_str().unwrap()];
    let from_file = with(&flags).unwrap();
    let from_environment = read_from(&[], &[MINIMAL[0], MINIMAL[1], ("COGNITO_CLIENT_SECRET", SECRET)], "").unwrap();
    let from_dot_env = read_from(&[], &MINIMAL, &format!("COGNITO_CLIENT_SECRET={SECRET}\n")).unwrap();
    let both = read_from(&flags, &[MINIMAL[0], MINIMAL[1], ("COGNITO_CLIENT_SECRET", "the file takes precedence")], "");
    for config in [from_file, from_environment, from_dot_env, both.unwrap()] {
        let secret = config.account.as_ref().unwrap().client_secret.as_ref().unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(secret), SECRET);
        assert!(!format!("{config:?}").contains(SECRET) && !config.effective.to_string().contains(SECRET));
    }
    let shown = read_from(&[], &MINIMAL, &format!("COGNITO_CLIENT_SECRET={SECRET}\n")).unwrap().effective;
    assert_eq!(
        shown["client-secret"],
        json!({"value": "[redacted]", "source": "COGNITO_CLIENT_SECRET, line 1 of .env"})
    );
    std::fs::write(&file, "too short, and not to be shown").unwrap();
    for error in [
        with(&flags).unwrap_err(),
        read_from(&[], &[MINIMAL[0], MINIMAL[1], ("COGNITO_CLIENT_SECRET", "not to be shown")], "").unwrap_err(),
    ] {
        assert!(error.contains("an app client's secret (one word") && !error.contains("to be shown"), "{error}");
    }
}

#[test]
fn options_for_browsers_are_complete_or_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let account = |flags: &[&str]| with(flags).map(|config| (config.account.unwrap().settings, config.warnings));
    let (off, _) = account(&[]).unwrap();
    assert!(off.hosted_ui.is_none() && off.cookies.is_none());

    let redirect = "--oauth-redirect-uris=https://app.test/callback";
    let hosted = ["--hosted-ui-domain", "auth.test", redirect];
    let (config, warnings) = account(&hosted).unwrap();
    let pages = config.hosted_ui.unwrap();
    assert_eq!(pages.domain.0.as_str(), "https://auth.test/");
    assert_eq!((pages.redirect_uris.len(), pages.scopes.len()), (1, 3));
    assert!(warnings.iter().any(|warning| warning.contains("--oauth-state-key-file")), "{warnings:?}");
    let key = file("key", &format!("{}\n", "k".repeat(32)));
    let (config, warnings) = account(&[&hosted[..], &["--oauth-state-key-file", &key]].concat()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(!format!("{config:?}").contains("kkkk"));
    let secret = [MINIMAL[0], MINIMAL[1], ("COGNITO_CLIENT_SECRET", "1exampleclientsecret")];
    assert!(read_from(&hosted, &secret, "").unwrap().warnings.is_empty());

    let (config, _) = account(&["--account-cookies", "--account-cookie-max-age=30d"]).unwrap();
    assert_eq!(config.cookies.unwrap().max_age, Some(30 * 86_400));

    // Session cookies are `Lax` exactly if the routes of the sign-in by redirect exist.
    let callback = ["--oauth-redirect-uris=https://app.test/auth/oauth/callback", "--account-cookies"];
    let goodbye = ["--oauth-logout-uris=https://app.test/"];
    let hosted_key = [&hosted[..], &["--oauth-state-key-file", &key]].concat();
    for (more, same_site, is_warned) in [
        (&["--account-cookies"][..], SameSite::Strict, false),
        (&callback, SameSite::Lax, true),
        (&[callback[0], callback[1], goodbye[0]], SameSite::Lax, false),
        (&[callback[0], callback[1], "--account-prefix=/login"], SameSite::Strict, false),
        (&[callback[0], callback[1], goodbye[0], "--account-prefix=/auth"], SameSite::Lax, false),
    ] {
        let (config, warnings) = account(&[&hosted_key[..], more].concat()).unwrap();
        assert_eq!(config.cookies.unwrap().same_site, same_site, "{more:?}");
        let is_warned_of = warnings.iter().any(|warning| warning.contains("--oauth-logout-uris is unset"));
        assert_eq!(is_warned_of, is_warned, "{more:?}: {warnings:?}");
    }
    let (config, _) = account(&["--account-cookies"]).unwrap();
    assert_eq!(config.cookies.unwrap().same_site, SameSite::Strict);

    let short = file("short", "kkkkkkkk");
    for (flags, expected) in [
        (
            &["--hosted-ui-domain", "auth.test"][..],
            "--hosted-ui-domain: needs at least one URI in --oauth-redirect-uris",
        ),
        (&["--hosted-ui-domain", "auth.test/x", redirect], "--hosted-ui-domain: not a domain such as auth.example.com"),
        (
            &["--hosted-ui-domain", "http://auth.test", redirect],
            "--hosted-ui-domain: plain http to a host other than loopback needs",
        ),
        (&[redirect], "--oauth-redirect-uris: has no effect without --hosted-ui-domain (from the flag)"),
        (&["--oauth-logout-uris=https://app.test/"], "--oauth-logout-uris: has no effect without --hosted-ui-domain"),
        (&["--oauth-state-key-file", &key], "--oauth-state-key-file: has no effect without --hosted-ui-domain"),
        (&["--oauth-redirect-uris=http://app.test/"], "--oauth-redirect-uris: plain http is for this machine only"),
        (&["--oauth-scopes=open id"], "--oauth-scopes: a scope is one word"),
        (&["--account-cookie-max-age=30d"], "--account-cookie-max-age: has no effect without --account-cookies"),
        (&["--account-cookies", "--token-use", "id"], "--account-cookies: checks take the access token"),
        (&["--account-cookie-max-age=401d"], "--account-cookie-max-age: not between 1m and 400d"),
        (
            &[&hosted[..], &["--oauth-state-key-file", "/nowhere"]].concat(),
            "--oauth-state-key-file: /nowhere cannot be read",
        ),
        (&[&hosted[..], &["--oauth-state-key-file", &short]].concat(), "--oauth-state-key-file: "),
    ] {
        let error = account(flags).err().unwrap_or_else(|| panic!("{flags:?} passes"));
        assert!(error.starts_with(expected) && !error.contains("kkkk"), "{error}");
    }
    // The pool that browsers sign in to has to accept access tokens.
    let pools = |members: &str| {
        let pool =
            |name: &str, members: &str| format!("{name}: {{user_pool_id: us-east-1_{name}, client_ids: c, {members}}}");
        file(
            "pools",
            &format!("pools: {{{}, {}}}", pool("access", ""), pool("id", "token_use: id"))
                .replace("pools:", &format!("{members}\npools:")),
        )
    };
    for (members, flags, refused) in [
        ("account: {pool: id}", &[][..], Some("the pool id (`token_use: id`)")),
        ("account: {pool: access}", &[], None),
        ("account: {pool: access}", &["--token-use=id"], None),
        ("account: {pool: id}", &["--account-api=false"], Some("the pool id (`token_use: id`)")),
        ("", &["--token-use=id"], Some("--token-use id")),
        ("", &[], None),
    ] {
        let path = pools(members);
        let read = with(&[&["--account-cookies", "--config", &path], flags].concat());
        match refused {
            Some(refuser) => {
                let error = read.unwrap_err();
                let expected =
                    format!("--account-cookies: checks take the access token of a browser's session, and {refuser}");
                assert!(error.starts_with(&expected), "{error}");
            }
            None => assert!(read.is_ok(), "{members} {flags:?}"),
        }
    }
    let insecure =
        [&["--hosted-ui-domain", "http://auth.test", redirect][..], &["--allow-insecure-endpoints"]].concat();
    assert!(account(&insecure).is_ok() && account(&["--hosted-ui-domain", "http://localhost:1", redirect]).is_ok());
}
