//! The function's address → the webhook's base URL, an RFC 6570 template.

use url::Url;

use crate::config::is_loopback;

/// Expands to `/` and the id of the device (`TheThingsNetwork/lorawan-stack pkg/applicationserver/io/web/request.go`).
pub(super) const VARIABLE: &str = "{/devID}";
/// The same under its other name.
const ALIAS: &str = "{/deviceID}";

/// A base URL that can work.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) base_url: String,
    /// Whether the variable was missing.
    pub(super) variable_added: bool,
}

impl Address {
    /// Reads the address of the function, with or without the variable. A problem does not repeat it: it may hold a key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "give the address of the function: https://APP.azurewebsites.net/api/uplink";
        let text = text.trim();
        let variable = [VARIABLE, ALIAS].into_iter().find(|variable| text.ends_with(variable));
        let bare = variable.map_or(text, |variable| &text[..text.len() - variable.len()]);
        if bare.contains(['{', '}']) {
            return Err(format!("the one variable that it may have is `{VARIABLE}` at its end"));
        }
        let url = Url::parse(bare).map_err(|_| format!("is no address; {FORM}"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(
                "URLs end up in logs, so keys do not belong there; leave out what stands before `@` or behind `?` \
                        and `#`: the function key goes into a header"
                    .to_owned(),
            );
        }
        if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
            return Err("what devices send and the function key would travel unprotected; use https".to_owned());
        }
        if url.path().trim_matches('/').is_empty() {
            return Err(format!("names no function; {FORM}"));
        }
        let base = url.as_str().trim_end_matches('/');
        Ok(Self { base_url: format!("{base}{}", variable.unwrap_or(VARIABLE)), variable_added: variable.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_added_where_it_is_missing() {
        for (given, base_url, variable_added) in [
            (
                "https://app.azurewebsites.net/api/uplink{/devID}",
                "https://app.azurewebsites.net/api/uplink{/devID}",
                false,
            ),
            ("https://app.example.net/api/uplink{/deviceID}", "https://app.example.net/api/uplink{/deviceID}", false),
            (" https://app.example.net/api/uplink ", "https://app.example.net/api/uplink{/devID}", true),
            ("https://app.example.net/api/uplink/", "https://app.example.net/api/uplink{/devID}", true),
            ("HTTPS://APP.example.net/api/uplink", "https://app.example.net/api/uplink{/devID}", true),
            ("http://localhost:7071/api/uplink", "http://localhost:7071/api/uplink{/devID}", true),
            ("http://[::1]:7071/api/uplink", "http://[::1]:7071/api/uplink{/devID}", true),
        ] {
            assert_eq!(Address::parse(given), Ok(Address { base_url: base_url.to_owned(), variable_added }), "{given}");
        }
    }

    #[test]
    fn an_address_that_cannot_work_or_would_leak_is_refused_and_not_repeated() {
        for (given, why) in [
            ("http://app.example.net/api/uplink", "use https"),
            ("ftp://localhost/api/uplink", "use https"),
            ("https://app.example.net/api/uplink?code=s3cret", "keys do not belong there"),
            ("https://app.example.net/api/uplink?code=s3cret{/devID}", "keys do not belong there"),
            ("https://u:s3cret@app.example.net/api/uplink", "keys do not belong there"),
            ("https://app.example.net/api/uplink#s3cret", "keys do not belong there"),
            ("https://app.example.net", "names no function"),
            ("https://app.example.net//", "names no function"),
            ("https://app.example.net/{/devID}", "names no function"),
            ("https://app.example.net/api{/appID}/uplink{/devID}", "the one variable"),
            ("https://app.example.net/api/uplink{devID}", "the one variable"),
            ("app.example.net/api/uplink", "is no address"),
            ("{/devID}", "is no address"),
            ("", "is no address"),
        ] {
            let told = Address::parse(given).expect_err(given);
            assert!(told.contains(why) && !told.contains("s3cret"), "{given}: {told}");
        }
    }
}
