use super::*;

#[test]
fn requirements_in_words() {
    let words = |route| row(route).requirement();
    assert_eq!(words("/register"), "email, password, and name are required");
    assert_eq!(words("/login"), "email and password are required");
    assert_eq!(words("/resend-code"), "email is required");
    assert_eq!(words("/reset-password"), "email, code, and newPassword are required");
    assert_eq!(words("/refresh"), "refreshToken is required");
    assert_eq!(words("/logout"), "");
    assert_eq!(words("/verify-attribute"), "attribute and code are required");
    assert_eq!(words("PATCH /me"), "attributes is required");
    assert_eq!(words("PUT /mfa/preference"), "totp, sms, or email is required");
    assert_eq!(words("PUT /webauthn/registration"), "credential is required");
    assert_eq!(words("DELETE /webauthn/credentials/x"), "");
}

#[test]
fn names_and_routes_are_unique() {
    for (index, row) in rows().enumerate() {
        let path = row.path.split("/{").next().unwrap().replace('/', "-");
        assert!(format!("-{}", row.name).ends_with(&path), "{}", row.name);
        let differs = |other: &Row| (&other.method, other.path) != (&row.method, row.path) && other.name != row.name;
        assert!(rows().skip(index + 1).all(differs), "{}", row.name);
        for (index, field) in row.fields.iter().enumerate() {
            assert!(row.fields.iter().skip(index + 1).all(|other| other.name != field.name), "{}", field.name);
            if field.target == Target::Parameters {
                assert!(row.operation.parameters().is_some(), "{}", row.name);
            }
            match field.place {
                Place::Body => {}
                Place::Path => {
                    assert!(row.path.ends_with(&format!("/{{{}}}", field.name)), "{}", row.name);
                    // Anything else could be another path to a server that decodes it.
                    assert_eq!((field.target.shape(), field.need), (Shape::Id, Need::Yes), "{}", row.name);
                }
                Place::Query => {
                    assert_eq!((field.target.shape(), field.need), (Shape::Text, Need::No), "{}", row.name);
                }
            }
        }
        assert!(
            row.limit == Limit::Address
                || row.credential != Credential::None
                || row.fields.iter().any(|f| f.need == Need::User)
        );
    }
}

#[test]
fn paths_with_and_without_a_member() {
    for (route, path, segment) in [
        ("GET /me", "/me", Some("")),
        ("GET /me", "/me/", None),
        ("GET /me", "/me/x", None),
        ("DELETE /webauthn/credentials/x", "/webauthn/credentials/x", Some("x")),
        ("DELETE /webauthn/credentials/x", "/webauthn/credentials/%2Fx", Some("%2Fx")),
        ("DELETE /webauthn/credentials/x", "/webauthn/credentials/{credentialId}", Some("{credentialId}")),
        ("DELETE /webauthn/credentials/x", "/webauthn/credentials/", None),
        ("DELETE /webauthn/credentials/x", "/webauthn/credentials/x/", None),
        ("DELETE /webauthn/credentials/x", "/webauthn/credentials", None),
        ("GET /webauthn/credentials", "/webauthn/credentials", Some("")),
        ("GET /webauthn/credentials", "/webauthn/credentials/x", None),
    ] {
        assert_eq!(row(route).segment(path), segment, "{route} {path}");
    }
    for row in rows() {
        let has_member = row.fields.iter().any(|field| field.place == Place::Path);
        assert_eq!(row.path.contains('{'), has_member, "{}", row.name);
    }
}

#[test]
fn an_access_token_that_cognito_gets_has_the_scope() {
    for row in rows().filter(|row| row.operation.takes_access_token() && row.flow != Flow::Logout) {
        assert!(matches!(row.credential, Credential::Token | Credential::TokenOrSession), "{}", row.name);
    }
}
