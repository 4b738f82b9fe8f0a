//! Being let in, and not.

use crate::fake::{Fake, Reply, Request};
use crate::lab::*;
use rcon_image::auth::{self, AuthOptions, Credentials};
use rcon_image::{Error, PullOptions};
use std::os::unix::fs::PermissionsExt;

/// `me:pw`.
const BASIC: &str = "Basic bWU6cHc=";

fn ask_for_basic() -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required")
        .with("WWW-Authenticate", "Basic realm=\"Registry\"")
}

fn with_creds(lab: &Lab, password: &str) -> PullOptions {
    PullOptions {
        creds: Some(("me".into(), password.into())),
        ..lab.options()
    }
}

fn basic_registry() -> Fake {
    let fake = Fake::start();
    Image::small().serve(&fake, "x", "latest");
    fake.on_request(|request, reply| match request.header("authorization") {
        Some(BASIC) => reply,
        _ => ask_for_basic(),
    });
    fake
}

#[test]
fn basic() {
    let fake = basic_registry();
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    let error = lab.pull(&name).unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("unauthorized: authentication required"),
        "{text}"
    );
    assert_eq!(
        error.hint().unwrap(),
        format!("log in with `rcon login {}`", fake.address)
    );
    let wrong = lab.pull_with(&name, &with_creds(&lab, "no"), &Recorder::default());
    assert!(wrong.unwrap_err().to_string().contains("unauthorized"));
    lab.assert_empty();
    lab.pull_with(&name, &with_creds(&lab, "pw"), &Recorder::default())
        .unwrap();
}

#[test]
fn login_keeps_and_logout_forgets() {
    let fake = basic_registry();
    let lab = Lab::new();
    let file = lab.path("sub/auth.json");
    let opts = AuthOptions {
        authfile: Some(file.clone()),
        ..AuthOptions::default()
    };
    let error = auth::login(&fake.address, "me", "wrong", &opts).unwrap_err();
    assert!(matches!(error, Error::WrongPassword { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "logging into \"{}\": invalid username/password",
            fake.address
        )
    );
    assert!(!file.exists(), "nothing is kept that does not work");

    auth::login(&fake.address, "me", "pw", &opts).unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let found = auth::lookup(&format!("{}/x", fake.address), &opts).unwrap();
    assert_eq!(
        found,
        Some(Credentials::Basic {
            user: "me".into(),
            password: "pw".into()
        })
    );
    let options = PullOptions {
        authfile: Some(file.clone()),
        ..PullOptions::default()
    };
    let name = format!("{}/x", fake.address);
    lab.pull_with(&name, &options, &Recorder::default())
        .unwrap();

    assert!(auth::logout(&fake.address, &opts).unwrap());
    assert!(!auth::logout(&fake.address, &opts).unwrap());
    assert_eq!(auth::lookup(&fake.address, &opts).unwrap(), None);
    auth::login(&fake.address, "me", "pw", &opts).unwrap();
    auth::logout_all(&opts).unwrap();
    assert_eq!(auth::lookup(&fake.address, &opts).unwrap(), None);
}

/// A registry that wants tokens; its own token service. Tokens are `t0`, `t1`, …; only those that
/// `accepted` likes are let in.
fn token_registry(accepted: impl Fn(&str, &Request) -> bool + Send + Sync + 'static) -> Fake {
    let fake = Fake::start();
    let realm = format!("http://{}/token", fake.address);
    fake.on_request(move |request, reply| {
        if request.path == "/token" {
            let body = format!(r#"{{"token":"t{}","expires_in":300}}"#, request.before);
            return Reply::new(200, body);
        }
        let token = request
            .header("authorization")
            .and_then(|a| a.strip_prefix("Bearer "));
        if token.is_some_and(|t| accepted(t, request)) {
            return reply;
        }
        Reply::error(401, "UNAUTHORIZED", "authentication required").with(
            "WWW-Authenticate",
            &format!(
                "Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:team/x:pull\""
            ),
        )
    });
    fake
}

#[test]
fn tokens_for_anybody() {
    let fake = token_registry(|_, _| true);
    Image::small().serve(&fake, "team/x", "latest");
    let lab = Lab::new();
    lab.pull(&format!("{}/team/x", fake.address)).unwrap();
    let asked = fake.requests("/token");
    assert_eq!(asked.len(), 1, "one token for all requests");
    assert_eq!(
        asked[0].query,
        "service=the+registry&scope=repository%3Ateam%2Fx%3Apull"
    );
    assert_eq!(asked[0].header("authorization"), None);
}

#[test]
fn tokens_for_somebody() {
    let fake = token_registry(|_, _| true);
    Image::small().serve(&fake, "team/x", "latest");
    let lab = Lab::new();
    let name = format!("{}/team/x", fake.address);
    lab.pull_with(&name, &with_creds(&lab, "pw"), &Recorder::default())
        .unwrap();
    let asked = &fake.requests("/token")[0];
    assert_eq!(asked.header("authorization"), Some(BASIC));
    assert!(asked.query.contains("account=me"));
    // The password goes to the token service alone.
    for request in fake.requests("/v2/") {
        assert_ne!(
            request.header("authorization"),
            Some(BASIC),
            "{}",
            request.path
        );
    }
}

#[test]
fn an_identity_token_is_sent_in_the_body() {
    let fake = token_registry(|_, _| true);
    Image::small().serve(&fake, "team/x", "latest");
    let lab = Lab::new();
    let file = lab.path("auth.json");
    let text = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"se&cret"}}}}}}"#,
        fake.address
    );
    std::fs::write(&file, text).unwrap();
    let options = PullOptions {
        authfile: Some(file),
        ..PullOptions::default()
    };
    let name = format!("{}/team/x", fake.address);
    lab.pull_with(&name, &options, &Recorder::default())
        .unwrap();
    let asked = &fake.requests("/token")[0];
    assert_eq!(asked.method, "POST");
    assert!(
        asked
            .body
            .contains("grant_type=refresh_token&refresh_token=se%26cret"),
        "{}",
        asked.body
    );
}

#[test]
fn a_token_that_ends_is_renewed() {
    // From the blobs on the first token is not good any more.
    let fake = token_registry(|token, request| token != "t0" || !request.path.contains("/blobs/"));
    Image::small().serve(&fake, "team/x", "latest");
    Lab::new()
        .pull(&format!("{}/team/x", fake.address))
        .unwrap();
    assert_eq!(fake.requests("/token").len(), 2);
}

#[test]
fn no_token_is_good_enough() {
    let fake = token_registry(|_, request| request.path == "/v2/");
    Image::small().serve(&fake, "team/x", "latest");
    let lab = Lab::new();
    let text = lab.refused(&format!("{}/team/x", fake.address));
    assert!(
        text.contains("unauthorized: authentication required"),
        "{text}"
    );
    assert!(fake.requests("/token").len() <= 2);
}

#[test]
fn a_helper_keeps_whole_registries_only() {
    let fake = basic_registry();
    let lab = Lab::new();
    let file = lab.path("auth.json");
    let text = format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, fake.address);
    std::fs::write(&file, text).unwrap();
    let opts = AuthOptions {
        authfile: Some(file),
        ..AuthOptions::default()
    };
    let name = format!("{}/team", fake.address);
    let error = auth::login(&name, "me", "pw", &opts).unwrap_err();
    assert!(error.to_string().contains("whole registries"), "{error}");
}

#[test]
fn a_helper_is_asked() {
    let fake = basic_registry();
    let lab = Lab::new();
    let bin = lab.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    std::fs::write(
        &helper,
        "#!/bin/sh\nread server\nif [ \"$1 $server\" = \"get $KNOWN\" ]; then\n\
         echo '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"pw\"}'\n\
         else echo 'credentials not found in native keychain'; exit 1; fi\n",
    )
    .unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = lab.path("auth.json");
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    for config in [
        format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, fake.address),
        r#"{"credsStore":"test"}"#.to_owned(),
    ] {
        std::fs::write(&file, config).unwrap();
        let out = crate::signals::program(&lab)
            .args(["pull", &format!("{}/x", fake.address)])
            .arg(format!("--authfile={}", file.display()))
            .env("PATH", &path)
            .env("KNOWN", &fake.address)
            .output();
        let Some(out) = crate::signals::usable(out) else {
            return;
        };
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{text}");
    }
    // One that is gone does not keep us from what is public.
    std::fs::write(&file, r#"{"credsStore":"gone"}"#).unwrap();
    let public = Fake::start();
    Image::small().serve(&public, "x", "latest");
    let options = PullOptions {
        authfile: Some(file),
        ..PullOptions::default()
    };
    let seen = Recorder::default();
    lab.pull_with(&format!("{}/x", public.address), &options, &seen)
        .unwrap();
    assert!(
        seen.text()
            .contains("credential helper docker-credential-gone: "),
        "{}",
        seen.text()
    );
}
