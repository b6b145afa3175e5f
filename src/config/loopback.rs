//! Whether an address is on this machine: only there may a credential travel in the clear.

use std::net::IpAddr;

use url::Url;

/// Whether the host of a URL is this machine. Its name is compared as text: a resolver could say anything of other names.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // URLs whose scheme is none of the web's keep an IPv4 address as text.
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback_whatever_the_scheme() {
        for (address, expected) in [
            ("http://localhost:1", true),
            ("amqp://LOCALHOST", true),
            ("http://127.0.0.1", true),
            ("amqp://127.0.0.1:5672", true),
            ("amqp://127.1.2.3", true),
            ("http://[::1]", true),
            ("amqp://[::1]:5672", true),
            ("amqp://128.0.0.1", false),
            ("amqp://[::2]", false),
            ("amqp://127.0.0.1.example.net", false),
            ("http://localhost.example.net", false),
            ("amqp://acme.servicebus.windows.net", false),
            ("mailto:localhost", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(address).expect(address)), expected, "{address}");
        }
    }
}
