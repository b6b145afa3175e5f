//! The address that a webhook calls: RFC 6570 expansion and the way base and path are joined
//! (`TheThingsNetwork/lorawan-stack pkg/applicationserver/io/web/request.go`).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

/// What RFC 6570 leaves as it is in a simple expansion: the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why no address could be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum UrlError {
    /// The template breaks RFC 6570.
    #[error("expand `{0}`: an expression is not closed or has an operator that does not exist")]
    Template(String),
    /// The result is no address.
    #[error("build the address of the webhook: {0}")]
    Address(#[from] url::ParseError),
}

/// The eight variables, from the unfiltered identifiers of a message. One that the device does not have is empty.
fn variable<'v>(ids: &'v Value, name: &str) -> Option<&'v str> {
    let value = match name {
        "appID" | "applicationID" => &ids["application_ids"]["application_id"],
        "appEUI" | "joinEUI" => &ids["join_eui"],
        "devID" | "deviceID" => &ids["device_id"],
        "devEUI" => &ids["dev_eui"],
        "devAddr" => &ids["dev_addr"],
        _ => return None,
    };
    Some(value.as_str().unwrap_or_default())
}

/// How an operator of RFC 6570 prints: before the first value, between values, with names, `=` after the name of an empty value.
struct Style {
    first: &'static str,
    separator: &'static str,
    named: bool,
    if_empty: &'static str,
}

fn style(operator: char) -> Option<Style> {
    let style = |first, separator, named, if_empty| Some(Style { first, separator, named, if_empty });
    match operator {
        '+' => style("", ",", false, ""),
        '#' => style("#", ",", false, ""),
        '.' => style(".", ".", false, ""),
        '/' => style("/", "/", false, ""),
        ';' => style(";", ";", true, ""),
        '?' => style("?", "&", true, "="),
        '&' => style("&", "&", true, "="),
        _ => None,
    }
}

fn expression(ids: &Value, text: &str) -> Option<String> {
    let operator = text.chars().next().filter(|first| !first.is_ascii_alphanumeric());
    let style = match operator {
        Some(operator) => style(operator)?,
        None => Style { first: "", separator: ",", named: false, if_empty: "" },
    };
    let names = &text[operator.map_or(0, char::len_utf8)..];
    let values = names.split(',').filter_map(|name| {
        let value = variable(ids, name)?;
        let value = utf8_percent_encode(value, RESERVED).to_string();
        Some(match (style.named, value.is_empty()) {
            (true, true) => format!("{name}{}", style.if_empty),
            (true, false) => format!("{name}={value}"),
            (false, _) => value,
        })
    });
    let values: Vec<String> = values.collect();
    let first = if values.is_empty() { "" } else { style.first };
    Some(format!("{first}{}", values.join(style.separator)))
}

/// Fills the variables of a template in.
fn expand(template: &str, ids: &Value) -> Result<String, UrlError> {
    let broken = || UrlError::Template(template.to_owned());
    let mut expanded = String::new();
    let mut rest = template;
    while let Some((literal, behind)) = rest.split_once('{') {
        let (inner, behind) = behind.split_once('}').ok_or_else(broken)?;
        expanded.push_str(literal);
        expanded.push_str(&expression(ids, inner).ok_or_else(broken)?);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The address for one message: a query of the base is lost as soon as the path is not empty.
pub(super) fn webhook_url(base_url: &str, path: &str, ids: &Value) -> Result<Url, UrlError> {
    let mut base = Url::parse(&expand(base_url, ids)?)?;
    let path = expand(path, ids)?;
    let relative = path.trim_start_matches('/');
    let has_path = path.starts_with('/') || !relative.is_empty() && !relative.starts_with(['?', '#']);
    if has_path && !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    if relative.is_empty() {
        // An empty reference resolves to the base with its query; a bare `/` only added a slash to it.
        return Ok(base);
    }
    // A first segment with a colon is no scheme here.
    let reference = if relative.starts_with(['?', '#']) { relative.to_owned() } else { format!("./{relative}") };
    Ok(base.join(&reference)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ids() -> Value {
        json!({
            "device_id": "valve-3",
            "application_ids": {"application_id": "greenhouse"},
            "dev_eui": "70B3D57ED0000003",
            "join_eui": "0000000000000001",
        })
    }

    #[test]
    fn base_and_path_are_joined_as_the_things_stack_does() {
        for (base, path, url) in [
            ("https://h/hook", "", "https://h/hook"),
            ("https://h/hook", "/", "https://h/hook/"),
            ("https://h/hook", "/up", "https://h/hook/up"),
            ("https://h/hook", "up", "https://h/hook/up"),
            ("https://h/hook/", "//up", "https://h/hook/up"),
            ("https://h/hook{/appID}", "up{/devID}", "https://h/hook/greenhouse/up/valve-3"),
            ("https://h/hook?code=K", "", "https://h/hook?code=K"),
            ("https://h/hook?code=K", "/up", "https://h/hook/up"),
            ("https://h/hook", "?code=K", "https://h/hook?code=K"),
            ("https://h/api/uplink/{devID}", "", "https://h/api/uplink/valve-3"),
            ("https://h/a{?devEUI,devAddr}", "", "https://h/a?devEUI=70B3D57ED0000003&devAddr="),
            ("https://h/{joinEUI}/{appEUI}", "", "https://h/0000000000000001/0000000000000001"),
            ("https://h/hook", "x:y", "https://h/hook/x:y"),
            ("https://h/a{/unheardOf}", "", "https://h/a"),
        ] {
            let built = webhook_url(base, path, &ids()).map(String::from);
            assert_eq!(built.ok().as_deref(), Some(url), "{base} + {path}");
        }
    }

    #[test]
    fn a_broken_template_is_refused() {
        for base in ["https://h/{devID", "https://h/{!devID}", "no address"] {
            assert!(webhook_url(base, "", &ids()).is_err(), "{base}");
        }
    }
}
