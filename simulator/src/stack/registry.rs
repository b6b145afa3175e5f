//! The four registries of end devices: each server knows its part of a device, and nothing keeps them in step.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::error::{ApiError, Code};
use super::timestamp;

/// One of the four servers that know end devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// Identity Server.
    Identity,
    /// Join Server.
    Join,
    /// Network Server.
    Network,
    /// Application Server.
    Application,
}

impl Server {
    /// All four, in the order of a registration.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Join, Self::Network, Self::Application];

    /// What stands before `/applications` in its paths.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Join => "/js",
            Self::Network => "/ns",
            Self::Application => "/as",
        }
    }

    /// Its role in a cluster, as errors name it.
    pub(super) fn cluster_role(self) -> &'static str {
        match self {
            Self::Identity => "Entity Registry",
            Self::Join => "Join Server",
            Self::Network => "Network Server",
            Self::Application => "Application Server",
        }
    }

    /// The server behind a path below `/api/v3`.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let path = path.strip_prefix("/api/v3/")?;
        match path.split('/').next()? {
            "applications" | "auth_info" => Some(Self::Identity),
            "js" => Some(Self::Join),
            "ns" => Some(Self::Network),
            "as" => Some(Self::Application),
            _ => None,
        }
    }

    /// The error about a device that is not there. The servers word it differently, and reading differs from deleting.
    ///
    /// `pkg/identityserver/store/errors.go`, `pkg/joinserver/errors.go`, `pkg/networkserver/errors.go`,
    /// `pkg/applicationserver/applicationserver.go`, `pkg/redis/errors.go`.
    pub(super) fn not_found(self, application: &str, device: &str, reading: bool) -> ApiError {
        let code = Code::NotFound;
        match self {
            Self::Identity => ApiError::new(
                code,
                "pkg/identityserver/store",
                "end_device_not_found",
                "end device with id `{device_id}` not found in application with id `{application_id}`",
            )
            .with("device_id", device)
            .with("application_id", application),
            Self::Join => ApiError::new(code, "pkg/joinserver", "device_not_found", "device not found"),
            Self::Network | Self::Application if reading => {
                ApiError::new(code, "pkg/redis", "not_found", "entity not found")
            }
            Self::Network => ApiError::new(code, "pkg/networkserver", "device_not_found", "device not found"),
            Self::Application => {
                ApiError::new(code, "pkg/applicationserver", "device_not_found", "device `{device_uid}` not found")
                    .with("device_uid", format!("{application}.{device}"))
            }
        }
    }
}

/// End devices by id, as one server knows them.
pub type Devices = BTreeMap<String, Value>;

/// What each server knows.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Identity Server.
    pub identity: Devices,
    /// Join Server.
    pub join: Devices,
    /// Network Server.
    pub network: Devices,
    /// Application Server.
    pub application: Devices,
}

impl Registries {
    /// The devices of one server.
    #[must_use]
    pub fn of(&self, server: Server) -> &Devices {
        match server {
            Server::Identity => &self.identity,
            Server::Join => &self.join,
            Server::Network => &self.network,
            Server::Application => &self.application,
        }
    }

    pub(super) fn of_mut(&mut self, server: Server) -> &mut Devices {
        match server {
            Server::Identity => &mut self.identity,
            Server::Join => &mut self.join,
            Server::Network => &mut self.network,
            Server::Application => &mut self.application,
        }
    }

    /// Stores a device with its times.
    pub(super) fn put(&mut self, server: Server, id: &str, mut device: Value) -> Value {
        let now = timestamp::now();
        let created_at = self.of(server).get(id).map_or_else(|| json!(now), |known| known["created_at"].clone());
        device["created_at"] = created_at;
        device["updated_at"] = json!(now);
        self.of_mut(server).insert(id.to_owned(), device.clone());
        device
    }

    /// Whether a server still knows the device.
    #[must_use]
    pub fn is_known(&self, id: &str) -> bool {
        Server::ALL.iter().any(|server| self.of(*server).contains_key(id))
    }

    /// Whether the device could work: all servers know their part of it. An ABP device needs no Join Server.
    #[must_use]
    pub fn is_complete(&self, id: &str) -> bool {
        let (Some(_), Some(network), Some(_)) = (self.identity.get(id), self.network.get(id), self.application.get(id))
        else {
            return false;
        };
        let has_plan = ["frequency_plan_id", "lorawan_version", "lorawan_phy_version"]
            .iter()
            .all(|field| network[field].is_string());
        let is_abp = network["supports_join"] != json!(true);
        let activates = if is_abp { network["session"]["dev_addr"].is_string() } else { self.can_join(id) };
        has_plan && activates
    }

    /// Whether the Join Server has the root keys that the device's LoRaWAN version needs.
    #[must_use]
    pub fn can_join(&self, id: &str) -> bool {
        let keys = self.join.get(id).map(|device| &device["root_keys"]);
        let has = |key: &str| keys.is_some_and(|keys| keys[key]["key"].is_string());
        let version = self.network.get(id).map(|device| &device["lorawan_version"]);
        has("app_key") && (version != Some(&json!("MAC_V1_1")) || has("nwk_key"))
    }

    /// The identifiers of a device as messages carry them, from the first server that knows it.
    #[must_use]
    pub fn ids(&self, application: &str, id: &str) -> Value {
        let known = Server::ALL.iter().find_map(|server| self.of(*server).get(id));
        known.map_or_else(
            || json!({"device_id": id, "application_ids": {"application_id": application}}),
            |device| device["ids"].clone(),
        )
    }
}
