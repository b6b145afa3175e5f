//! Who may connect: the user name and the password of a CONNECT packet.

use mqtt_proto::Protocol;
use mqtt_proto::v3::{Connect, ConnectReturnCode};
use time::OffsetDateTime;

use super::hub_name::HubName;
use super::injected_fault::Kind;
use super::registry::{Device, Registry};
use super::sas::{Policy, Right, SasError, Token};
use super::telemetry::{CredentialScope, Sender};
use super::will::Will;

/// Why a CONNECT is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the protocol is not MQTT 3.1.1")]
    Protocol,
    #[error("the user name is missing or has another form than host/device/?…")]
    UserName,
    #[error("the user name means another hub")]
    OtherHub,
    #[error("the client id differs from the device id of the user name")]
    ClientId,
    #[error("there is no password, or it is no text")]
    Password,
    #[error("the token is refused: {0}")]
    Token(#[from] SasError),
    #[error("the hub has no such device")]
    UnknownDevice,
    #[error("the device is disabled")]
    Disabled,
    #[error("the device proves who it is with a certificate, which the simulator does not ask for")]
    Certificate,
    #[error("the topic of the will is not where the device sends telemetry")]
    Will,
    #[error("the device ordered this fault: {0:?}")]
    Ordered(Kind),
}

impl Refusal {
    /// What a device that ordered this fault meets when it connects.
    pub(super) fn of_fault(kind: Kind) -> Option<Self> {
        match kind {
            Kind::KillTcp | Kind::ShutDownMqtt | Kind::AuthError => Some(Self::Ordered(kind)),
            Kind::Throttling | Kind::MaxMessageQuota => None,
        }
    }

    /// The answer on the wire: 5 for everything that is the client's fault
    /// (`Azure/azure-iot-sdk-c doc/connection_and_messaging_reliability.md`), 3 for a failure of the hub; `None`: the socket
    /// closes without one.
    pub(super) fn code(&self) -> Option<ConnectReturnCode> {
        match self {
            Self::Ordered(Kind::KillTcp) => None,
            Self::Ordered(Kind::ShutDownMqtt) => Some(ConnectReturnCode::ServerUnavailable),
            _ => Some(ConnectReturnCode::NotAuthorized),
        }
    }
}

/// A user name: `{host}/{device}/?api-version=…`, or without the `?` as older clients have it
/// (`Azure/iotedge edge-hub/core/src/Microsoft.Azure.Devices.Edge.Hub.Mqtt/MqttUsernameParser.cs`). Other parameters mean nothing
/// to this hub. A client without a version connects too, but has no twin (`andriyadi/AzureIoTHubMQTTClient#5`).
#[derive(Debug, PartialEq, Eq)]
struct UserName<'a> {
    host: &'a str,
    device_id: &'a str,
    has_version: bool,
}

impl<'a> UserName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (host, device_id, rest) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        // What else follows the device is a module, and this hub has none.
        let query =
            rest.strip_prefix('?').or((rest.is_empty() || rest.contains('=') && !rest.contains('/')).then_some(rest))?;
        let has_version =
            query.split('&').any(|pair| pair.strip_prefix("api-version=").is_some_and(|version| !version.is_empty()));
        (!device_id.is_empty()).then_some(Self { host, device_id, has_version })
    }
}

/// What an accepted CONNECT opens.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) sender: Sender,
    /// When the token ends and the session with it, in Unix seconds.
    pub(super) expiry: u64,
    /// Whether the device may use its twin.
    pub(super) has_twin: bool,
    pub(super) will: Option<Will>,
}

/// Checks a CONNECT.
pub(super) fn authorise(
    connect: &Connect,
    hub: &HubName,
    policies: &[Policy],
    registry: &Registry,
    now: OffsetDateTime,
) -> Result<Grant, Refusal> {
    if connect.protocol != Protocol::V311 {
        return Err(Refusal::Protocol);
    }
    let user = connect.username.as_deref().and_then(UserName::parse).ok_or(Refusal::UserName)?;
    if !hub.is(user.host) {
        return Err(Refusal::OtherHub);
    }
    if *connect.client_id != *user.device_id {
        return Err(Refusal::ClientId);
    }
    let password = connect.password.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    let token = Token::parse(password.ok_or(Refusal::Password)?)?;
    let device = registry.device(user.device_id).ok_or(Refusal::UnknownDevice)?;
    if !device.has_keys() {
        return Err(Refusal::Certificate);
    }
    let scope = check_token(&token, device, user.device_id, hub, policies, now)?;
    if !device.is_enabled() {
        return Err(Refusal::Disabled);
    }
    let will = match &connect.last_will {
        Some(will) => Some(Will::new(will, user.device_id).ok_or(Refusal::Will)?),
        None => None,
    };
    let sender =
        Sender { device_id: user.device_id.to_owned(), generation_id: device.generation_id().to_owned(), scope };
    Ok(Grant { sender, expiry: token.expiry(), has_twin: user.has_version, will })
}

fn check_token(
    token: &Token<'_>,
    device: &Device,
    device_id: &str,
    hub: &HubName,
    policies: &[Policy],
    now: OffsetDateTime,
) -> Result<CredentialScope, SasError> {
    let path = format!("devices/{device_id}");
    if token.policy().is_some() {
        token.check_policy(policies, Right::DeviceConnect, hub, &path, now)?;
        return Ok(CredentialScope::Hub);
    }
    // The last key's verdict stands: the first would hide that the second is fine.
    let mut verdict = Err(SasError::BadSignature);
    for key in device.keys() {
        verdict = token.check(&key, hub, &path, now);
        if verdict.is_ok() {
            break;
        }
    }
    verdict.map(|()| CredentialScope::Device)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use bytes::Bytes;
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::iot_hub::identity::IdentityRequest;
    use crate::iot_hub::registry::IfMatch;
    use crate::iot_hub::sas::{Rights, mint};

    const NOW: OffsetDateTime = datetime!(2026-03-01 09:00 UTC);
    const LATER: u64 = 1_893_456_000;
    const EARLIER: u64 = 1_700_000_000;
    const PRIMARY: &[u8] = b"primary-key-of-d1";
    const SECONDARY: &[u8] = b"secondary-key-of-d1";
    const POLICY: &[u8] = b"policy-key";

    fn registry() -> Registry {
        let mut registry = Registry::default();
        for (id, status) in [("d1", "enabled"), ("off", "disabled")] {
            let keys = json!({"primaryKey": BASE64_STANDARD.encode(PRIMARY), "secondaryKey": BASE64_STANDARD.encode(SECONDARY)});
            let body = json!({"deviceId": id, "status": status, "authentication": {"symmetricKey": keys}}).to_string();
            let request = IdentityRequest::parse(id, body.as_bytes()).expect("it is valid");
            registry.put(id, request, None::<&IfMatch>, NOW).expect("it is new");
        }
        registry
    }

    fn policies() -> Vec<Policy> {
        let device = Rights { device_connect: true, ..Rights::default() };
        let service = Rights { service_connect: true, ..Rights::default() };
        let policy = |name: &str, rights| Policy { name: name.into(), key: POLICY.to_vec(), rights };
        vec![policy("device", device), policy("service", service)]
    }

    fn connect(client_id: &str, username: &str, password: &str) -> Result<CredentialScope, Refusal> {
        let mut connect = Connect::new(client_id.into(), 60);
        connect.username = (!username.is_empty()).then(|| username.into());
        connect.password = (!password.is_empty()).then(|| Bytes::copy_from_slice(password.as_bytes()));
        let hub = HubName::new("sim.azure-devices.net");
        authorise(&connect, &hub, &policies(), &registry(), NOW).map(|grant| grant.sender.scope)
    }

    fn user(id: &str) -> String {
        format!("sim.azure-devices.net/{id}/?api-version=2021-04-12")
    }

    #[test]
    fn a_device_connects_with_either_key_or_a_policy() {
        for (resource, key, policy, scope) in [
            ("sim.azure-devices.net/devices/d1", PRIMARY, None, CredentialScope::Device),
            ("sim.azure-devices.net/devices/d1", SECONDARY, None, CredentialScope::Device),
            ("localhost:18883/devices/d1", PRIMARY, None, CredentialScope::Device),
            ("sim.azure-devices.net/devices", POLICY, Some("device"), CredentialScope::Hub),
            ("sim.azure-devices.net/devices/d1", POLICY, Some("device"), CredentialScope::Hub),
            ("sim.azure-devices.net", POLICY, Some("device"), CredentialScope::Hub),
        ] {
            assert_eq!(connect("d1", &user("d1"), &mint(resource, key, LATER, policy)), Ok(scope), "{resource}");
        }
    }

    #[test]
    fn tokens_that_do_not_fit_are_refused() {
        let (own, fleet) = ("sim.azure-devices.net/devices/d1", "sim.azure-devices.net/devices");
        for (token, error) in [
            (mint(own, POLICY, LATER, None), SasError::BadSignature),
            (mint(own, PRIMARY, EARLIER, None), SasError::Expired),
            (mint("sim.azure-devices.net/devices/d2", PRIMARY, LATER, None), SasError::OutOfScope),
            (mint("other.azure-devices.net/devices/d1", PRIMARY, LATER, None), SasError::OutOfScope),
            (mint(fleet, PRIMARY, LATER, Some("device")), SasError::BadSignature),
            (mint(fleet, POLICY, LATER, Some("nobody")), SasError::UnknownPolicy),
            (mint(fleet, POLICY, LATER, Some("service")), SasError::MissingRight(Right::DeviceConnect)),
        ] {
            assert_eq!(connect("d1", &user("d1"), &token), Err(Refusal::Token(error)));
        }
    }

    #[test]
    fn a_policy_token_replaces_only_the_credential() {
        let fleet = mint("sim.azure-devices.net/devices", POLICY, LATER, Some("device"));
        assert_eq!(connect("none", &user("none"), &fleet), Err(Refusal::UnknownDevice));
        assert_eq!(connect("off", &user("off"), &fleet), Err(Refusal::Disabled));
        assert_eq!(connect("d1", &user("off"), &fleet), Err(Refusal::ClientId));
        assert_eq!(connect("D1", &user("d1"), &fleet), Err(Refusal::ClientId));
        assert_eq!(connect("d1", &user("d1"), ""), Err(Refusal::Password));
    }

    #[test]
    fn user_names_are_taken_or_refused() {
        let parsed = |has_version| Some(UserName { host: "h", device_id: "d", has_version });
        for text in [
            "h/d/?api-version=2021-04-12",
            "h/d/api-version=1",
            "h/d/?DeviceClientType=x%2Fy&api-version=1&model-id=dtmi%3Aa",
        ] {
            assert_eq!(UserName::parse(text), parsed(true), "{text}");
        }
        for text in ["h/d", "h/d/", "h/d/?", "h/d/?api-version=", "h/d/?x=1", "h/d/?api=version"] {
            assert_eq!(UserName::parse(text), parsed(false), "{text}");
        }
        for text in
            ["", "h", "h//?api-version=1", "h/d/module/?api-version=1", "h/d/module/api-version=1", "h/d/module"]
        {
            assert_eq!(UserName::parse(text), None, "{text}");
        }
        let token = mint("sim.azure-devices.net/devices/d1", PRIMARY, LATER, None);
        let other = "other.azure-devices.net/d1/?api-version=1";
        assert_eq!(connect("d1", other, &token), Err(Refusal::OtherHub));
        assert_eq!(connect("d1", "", &token), Err(Refusal::UserName));
    }
}
