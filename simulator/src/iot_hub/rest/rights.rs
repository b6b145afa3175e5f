//! What a call of the service API needs: a right of a policy, or data actions of an identity.

use http::Method;

use crate::entra::actions;
use crate::iot_hub::sas::Right;

/// The rights matrix (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-dev-guide-sas.md`).
pub(super) fn right_for(method: &Method, path: &str) -> Right {
    match *method {
        _ if path.starts_with("/twins") || path == "/statistics/service" => Right::ServiceConnect,
        _ if path.ends_with("/commands") => Right::ServiceConnect,
        Method::POST if path == "/devices/query" => Right::ServiceConnect,
        Method::GET => Right::RegistryRead,
        _ => Right::RegistryWrite,
    }
}

/// The same for identities (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-dev-guide-azure-ad-rbac.md`): all of these.
pub(super) fn actions_for(method: &Method, path: &str) -> &'static [&'static str] {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        (&Method::POST, ["devices"]) => &[actions::DEVICES_WRITE, actions::DEVICES_DELETE],
        (&Method::POST, ["devices", "query"]) | (&Method::GET, ["twins", ..]) => &[actions::TWINS_READ],
        (_, ["devices", _, "commands"]) => &[actions::CLOUD_TO_DEVICE_PURGE],
        (_, ["twins", _, "methods"]) => &[actions::METHODS_INVOKE],
        (_, ["twins", ..]) => &[actions::TWINS_WRITE],
        (_, ["statistics", ..]) => &[actions::STATISTICS_READ],
        (&Method::GET, _) => &[actions::DEVICES_READ],
        (&Method::DELETE, _) => &[actions::DEVICES_DELETE],
        _ => &[actions::DEVICES_WRITE],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_needs_its_data_actions() {
        for (method, path, expected) in [
            (Method::GET, "/devices/d1", [actions::DEVICES_READ].as_slice()),
            (Method::GET, "/devices/", &[actions::DEVICES_READ]),
            (Method::PUT, "/devices/d1", &[actions::DEVICES_WRITE]),
            (Method::DELETE, "/devices/d1", &[actions::DEVICES_DELETE]),
            (Method::POST, "/devices", &[actions::DEVICES_WRITE, actions::DEVICES_DELETE]),
            (Method::POST, "/devices/query", &[actions::TWINS_READ]),
            (Method::DELETE, "/devices/d1/commands", &[actions::CLOUD_TO_DEVICE_PURGE]),
            (Method::GET, "/twins/d1", &[actions::TWINS_READ]),
            (Method::PATCH, "/twins/d1", &[actions::TWINS_WRITE]),
            (Method::PUT, "/twins/d1", &[actions::TWINS_WRITE]),
            (Method::POST, "/twins/d1/methods", &[actions::METHODS_INVOKE]),
            (Method::GET, "/statistics/service", &[actions::STATISTICS_READ]),
        ] {
            assert_eq!(actions_for(&method, path), expected, "{method} {path}");
        }
    }
}
