//! Paths and routes of HTTP triggers, as the host's web server and router see them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// One segment of a route template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter { optional: bool },
    CatchAll,
}

/// A route template such as `uplink/{device?}`, behind the prefix of `host.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route(Vec<Segment>);

impl Route {
    /// Parses the template; the error says what is not understood.
    pub(super) fn parse(prefix: &str, template: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        for text in prefix.split('/').chain(template.split('/')).filter(|text| !text.is_empty()) {
            if matches!(segments.last(), Some(Segment::CatchAll | Segment::Parameter { optional: true })) {
                return Err(format!("segment '{text}' follows an optional one"));
            }
            segments.push(parse_segment(text)?);
        }
        Ok(Self(segments))
    }

    /// Whether a decoded path (with its leading slash) takes this route. Case does not count, nor does one slash at
    /// the end; an empty segment in the middle matches nothing.
    pub(super) fn matches(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut given = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        given.reverse();
        for segment in &self.0 {
            match (segment, given.pop()) {
                (Segment::CatchAll, _) => return true,
                (Segment::Parameter { optional: true }, None) => {}
                (Segment::Literal(literal), Some(text)) if literal.eq_ignore_ascii_case(text) => {}
                (Segment::Parameter { .. }, Some(text)) if !text.is_empty() => {}
                _ => return false,
            }
        }
        given.is_empty()
    }
}

fn parse_segment(text: &str) -> Result<Segment, String> {
    let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return if text.contains(['{', '}']) {
            Err(format!("segment '{text}' mixes text and a parameter, which is not simulated"))
        } else {
            Ok(Segment::Literal(text.to_owned()))
        };
    };
    if let Some(name) = name.strip_prefix('*') {
        return parameter_name(name.trim_start_matches('*')).map(|()| Segment::CatchAll);
    }
    let optional = name.ends_with('?');
    parameter_name(name.strip_suffix('?').unwrap_or(name)).map(|()| Segment::Parameter { optional })
}

fn parameter_name(name: &str) -> Result<(), String> {
    if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(format!("parameter '{{{name}}}' has a constraint or default, which is not simulated"))
}

/// What stays readable in a path that the host sends on.
const KEPT_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// The path as the router sees it: decoded save for `%2F` and broken escapes, then without dot segments.
pub(super) fn decode(raw: &str) -> String {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match escape(byte, tail) {
            Some(value) if value != b'/' => {
                decoded.push(value);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    // Escapes that are no UTF-8 stay escaped in the host; a whole path that has one does here.
    without_dot_segments(&String::from_utf8(decoded).unwrap_or_else(|_| raw.to_owned()))
}

fn escape(byte: u8, tail: &[u8]) -> Option<u8> {
    let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let value = digit(0)? * 16 + digit(1)?;
    if byte == b'%' { u8::try_from(value).ok() } else { None }
}

fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').collect();
    let last = segments.len() - 1;
    for (at, segment) in segments.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." && kept.len() > 1 {
                    kept.pop();
                }
                if at == last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    kept.join("/")
}

/// The path as the handler gets it: every `%` that is left is encoded again, so `%2F` becomes `%252F`.
pub(super) fn encode(decoded: &str) -> String {
    percent_encode(decoded.as_bytes(), KEPT_IN_PATHS).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_takes_the_route_that_the_real_router_takes() {
        let route = Route::parse("api", "uplink/{device?}").expect("the template is fine");
        for (path, taken) in [
            ("/api/uplink", true),
            ("/api/uplink/", true),
            ("/API/UpLink", true),
            ("/api/uplink/soil-4", true),
            ("/api/uplink/soil-4/", true),
            ("/api/uplink/a%2Fb%20c", true),
            ("/api/uplink/x/../y", true),
            ("/api/uplink/x/y", false),
            ("/api//uplink", false),
            ("/api/uplink//", false),
            ("/api/uplink/%2e%2e", false),
            ("/uplink", false),
            ("/api", false),
            ("/", false),
            ("/api/uplinks", false),
        ] {
            assert_eq!(route.matches(&decode(path)), taken, "{path}");
        }
        assert!(Route::parse("", "files/{*rest}").expect("fine").matches("/files/a/b/c"));
        assert!(!Route::parse("api", "app/{name}").expect("fine").matches("/api/app"));
    }

    #[test]
    fn what_cannot_be_simulated_is_refused() {
        for template in ["a/{id:int}", "a/{id=5}", "a/b{id}", "{a?}/b", "{*a}/b"] {
            Route::parse("api", template).expect_err(template);
        }
    }

    #[test]
    fn the_handler_gets_the_path_that_was_recorded() {
        for (sent, arrived) in [
            ("/api/uplink", "/api/uplink"),
            ("/api/UPLINK/Soil-4/", "/api/UPLINK/Soil-4/"),
            ("/api/uplink/a%2Fb%20c%C3%A9%25", "/api/uplink/a%252Fb%20c%C3%A9%25"),
            ("/api/uplink/a%zz", "/api/uplink/a%25zz"),
            ("/api/uplink/x/../y", "/api/uplink/y"),
            ("/api/uplink/a+b;c=1,d@e:f", "/api/uplink/a+b;c=1,d@e:f"),
            ("/api/uplink/a%5Cb", "/api/uplink/a%5Cb"),
        ] {
            assert_eq!(encode(&decode(sent)), arrived);
        }
    }
}
