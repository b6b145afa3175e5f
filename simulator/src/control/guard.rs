//! Keeps web pages of others away from a port of this machine, which any browser on it can reach.
//!
//! A page of another site can send requests here, and by DNS rebinding even read the answers, for then its own host name
//! leads here. So the name must be one of this machine's own, and a request that a page made must come from this page.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::uri::Authority;

use super::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// On every answer: only what this port serves is loaded, run or asked, and nobody frames it.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Lets a request pass or refuses it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/sim/");
    let mut response = match check(request.headers(), is_api) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(headers: &HeaderMap, is_api: bool) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(HOST).unwrap_or_default();
    let name = host.parse::<Authority>().ok().map(|authority| authority.host().to_ascii_lowercase());
    if !matches!(name.as_deref(), Some("localhost" | "127.0.0.1" | "[::1]")) || host.contains('@') {
        return Err(Problem::new(421, "call this port as localhost or 127.0.0.1"));
    }
    if text(ORIGIN).is_some_and(|origin| !origin.eq_ignore_ascii_case(&format!("http://{host}"))) {
        return Err(Problem::new(403, "a page of another origin may not call the simulator"));
    }
    // `none`: the user typed the address. Only the API minds; a link to the page is harmless.
    if is_api && text(SEC_FETCH_SITE).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(Problem::new(403, "a page of another site may not call the simulator"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(pairs: &[(HeaderName, &'static str)], is_api: bool) -> bool {
        let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        check(&pairs.collect(), is_api).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["localhost", "localhost:7072", "LOCALHOST:1", "127.0.0.1:7072", "[::1]:7072"] {
            assert!(passes(&[(HOST, host)], true), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:7072", "localhost.evil.example", "127.0.0.1.evil.example", "a@localhost"]
        {
            assert!(!passes(&[(HOST, host)], true), "{host}");
        }
        assert!(!passes(&[], true));
    }

    #[test]
    fn only_the_own_page_may_call() {
        let host = (HOST, "localhost:7072");
        for (name, value, expected) in [
            (ORIGIN, "http://localhost:7072", true),
            (ORIGIN, "http://localhost:3000", false),
            (ORIGIN, "https://localhost:7072", false),
            (ORIGIN, "http://evil.example", false),
            (ORIGIN, "null", false),
            (SEC_FETCH_SITE, "same-origin", true),
            (SEC_FETCH_SITE, "none", true),
            (SEC_FETCH_SITE, "same-site", false),
            (SEC_FETCH_SITE, "cross-site", false),
        ] {
            assert_eq!(passes(&[host.clone(), (name.clone(), value)], true), expected, "{name}: {value}");
        }
        assert!(passes(&[host, (SEC_FETCH_SITE, "cross-site")], false), "a link to the page");
    }
}
