//! The name that a hub answers to.

/// The configured host name of the hub.
#[derive(Clone, Debug)]
pub(super) struct HubName(String);

impl HubName {
    pub(super) fn new(host: &str) -> Self {
        Self(host.to_ascii_lowercase())
    }

    /// The first label, which hub-made messages carry as `hubName` and user id.
    pub(super) fn short(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }

    /// Whether a client that says `host` means this hub: its name, or `localhost` since that is where simulators live,
    /// either with a port (the Node SDK copies the port of its connection string into user name and `sr`).
    pub(super) fn is(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        name.eq_ignore_ascii_case(&self.0) || name.eq_ignore_ascii_case("localhost")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_answers_to_its_name_and_to_localhost_with_or_without_a_port() {
        let hub = HubName::new("Sim.azure-devices.net");
        for host in ["sim.azure-devices.net", "SIM.azure-devices.net:8883", "localhost", "localhost:18883"] {
            assert!(hub.is(host), "{host}");
        }
        for host in ["", "sim", "other.azure-devices.net", "sim.azure-devices.net:", "sim.azure-devices.net:x"] {
            assert!(!hub.is(host), "{host}");
        }
        assert_eq!(hub.short(), "sim");
    }
}
